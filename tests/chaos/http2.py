# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""As much of HTTP/2 as it takes to call gRPC by hand and to see every frame that comes back, also
those of a stream that was cancelled, which gRPC's own clients drop unseen.

What is sent on a stream must fit into the window that it starts with, 64 KiB.
"""

import contextlib
import select
import socket
import struct
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CANCEL = 8
MOST = (1 << 31) - 1
INITIAL_WINDOW_SIZE = 4
METHOD_POST, SCHEME_HTTP = b"\x83", b"\x86"  # Entries of HPACK's static table.


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field that leaves HPACK's tables as they are."""
    name, value = name.encode(), value.encode()
    assert max(len(name), len(value)) < 127
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


class Connection:
    """To a server. Confined to one thread. Raises OSError once it is broken or closed."""

    def __init__(self, address, patience):
        host, port = address.rsplit(":", 1)
        self._authority = address
        self._socket = socket.create_connection((host, int(port)), timeout=patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._streams = {}  # By number: what takes a stream's frames, also after its end.
        self._next, self._pings, self._acked = 1, 0, 0
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(
            SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, MOST)) + frame(
                WINDOW_UPDATE, 0, 0, struct.pack(">I", MOST - 65535)))

    def open(self, path, metadata, take):
        """Begins a call and returns its number; `take(kind, flags, payload)` gets its frames."""
        number, self._next = self._next, self._next + 2
        self._streams[number] = take
        fields = {":path": path, ":authority": self._authority, "te": "trailers",
                  "content-type": "application/grpc", **metadata}
        block = METHOD_POST + SCHEME_HTTP + b"".join(
            literal(*field) for field in fields.items())
        self._socket.sendall(frame(HEADERS, END_HEADERS, number, block))
        return number

    def send(self, number, message):
        self._socket.sendall(frame(DATA, 0, number, struct.pack(">BI", 0, len(message)) + message))

    def cancel(self, number):
        self._socket.sendall(frame(RST_STREAM, 0, number, struct.pack(">I", CANCEL)))

    def ping(self):
        """Returns its number, for is_acked(): the server takes frames in their order, so it has
        read all that was sent before, and what it sends after the answer it sends knowing that."""
        self._pings += 1
        self._socket.sendall(frame(PING, 0, 0, struct.pack(">Q", self._pings)))
        return self._pings

    def is_acked(self, ping):
        return self._acked >= ping

    def read(self, seconds):
        """Gives on the frames that are there, or the first ones that come within so long."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise ConnectionResetError("the server has closed the connection")
        self._received += piece
        while len(self._received) >= 9:
            end = 9 + int.from_bytes(self._received[:3], "big")
            if len(self._received) < end:
                break
            kind, flags, number = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9:end], self._received[end:]
            self._take(kind, flags, number & MOST, payload)

    def _take(self, kind, flags, number, payload):
        if number:
            self._streams[number](kind, flags, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == PING:
            self._acked = max(self._acked, struct.unpack(">Q", payload)[0])

    def close(self, seconds=5):
        """Says goodbye, and reads to the end of what the server still sends."""
        until = time.monotonic() + seconds
        with contextlib.closing(self._socket), contextlib.suppress(ConnectionResetError):
            self._socket.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
            self._socket.shutdown(socket.SHUT_WR)
            while time.monotonic() < until:
                self.read(0.1)
