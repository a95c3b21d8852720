# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Load that goes on while a test changes something: streams that check every answer and its place.

    with streams(server, "identity") as running:
        ...
        eventually(lambda: running[0].received > 100)
"""

import contextlib
import threading
import time

import client
import reference


class Stream(threading.Thread):
    """Sends numbered requests in a window of 16 and checks answers and their order, until
    stopped."""

    def __init__(self, server, model):
        super().__init__()
        self.stream = client.Stream(server.stub)
        self.model = model
        self.stopping = threading.Event()
        self.sent = self.received = 0
        self.wrong = None
        self.slowest = 0.0
        reference.outputs(model, reference.random_inputs(model))

    def run(self):
        try:
            while not self.stopping.is_set():
                while self.sent - self.received < 16:
                    self.stream.send(client.numbered(self.model, self.sent))
                    self.sent += 1
                begin = time.monotonic()
                self.check(self.stream.answer())
                self.slowest = max(self.slowest, time.monotonic() - begin)
            for answer in self.stream.rest():
                self.check(answer)
            assert self.received == self.sent
        except BaseException as error:  # Asserted to be none, in the test's own thread.
            self.wrong = error

    def check(self, answer):
        assert not answer.error_message, answer.error_message
        assert answer.infer_response.id == str(self.received)
        self.received += 1


@contextlib.contextmanager
def streams(server, model, count=3):
    running = [Stream(server, model) for _ in range(count)]
    for stream in running:
        stream.start()
    try:
        yield running
    finally:
        for stream in running:
            stream.stopping.set()
        for stream in running:
            stream.join()
    assert [stream.wrong for stream in running] == [None] * count
