# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The log of a client: a line for every event, written at once, so that it survives the client.

    time session event fields…

A session is a stream, or the unary calls of a thread one after the other. Times are of the
system's monotonic clock, which all processes share.

    open kind how               kind: stream, unary or raw (a stream over HTTP/2 by hand, that is
                                cancelled); how: words that say what is special about it
    send number model order rows limit   just before; limit: seconds that it may take, 0: none
    recv number code version said added  just after; said: of an error what it says
    cancel number               the whole stream, or that call
    acked                       raw: the server has read the cancel and answered what came after it
    late bytes                  raw: so much of an answer came all the same
    idle seconds                raw: nothing of its model is in flight any more, that long after it
    busy count                  raw: so many requests still are
    end code answered details   answered: of the trailer `millrace-answered`, -1 where there is none
"""

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    time: float
    session: int
    name: str
    fields: tuple

    def __str__(self):
        return f"{self.time:.4f} {self.session} {self.name} {' '.join(self.fields)}"


class Log:
    """Thread-safe."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def write(self, session, name, *fields):
        words = " ".join(map(str, fields))
        os.write(self._file, f"{time.monotonic():.6f} {session} {name} {words}\n".encode())


def read(path):
    """Yields the events of a log."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            when, session, name, *fields = line.split()
            yield Event(float(when), int(session), name, tuple(fields))
