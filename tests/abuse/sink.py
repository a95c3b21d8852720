# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Takes whatever is sent to it and answers nothing, in a process of its own: what an attack costs
the machine without the server.

    with sink() as address:
"""

import contextlib
import resource
import selectors
import socket
import subprocess
import sys


@contextlib.contextmanager
def sink():
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, __file__],
                               stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    print("127.0.0.1:%d" % listening.getsockname()[1], flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                with contextlib.suppress(OSError):
                    connection = listening.accept()[0]
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ)
                continue
            try:
                if key.fileobj.recv(1 << 16):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            selector.unregister(key.fileobj)
            key.fileobj.close()


if __name__ == "__main__":
    main()
