# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A client process: streams and unary callers that log all they do, until standard input ends. A
line of it is an order that one of the next requests gives to its model.

    python clients.py ADDRESS HTTP LOG TABLE PROFILE NUMBER SEED

Then it opens nothing more, finishes what is open and ends.
"""

import contextlib
import http.client
import itertools
import queue
import random
import re
import struct
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass

import grpc
import http2
import wire
from events import Log
from tritonclient.grpc import service_pb2, service_pb2_grpc

PATIENCE = 120  # Seconds; what takes longer counts as lost.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
           ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
CODES = {code.value[0]: code.name for code in grpc.StatusCode}
CANCELLED_AFTER = 0.02  # Seconds; the most.
FORGOTTEN_WITHIN = 15  # Seconds from a cancel until nothing of it may be in flight.


@dataclass(frozen=True)
class Profile:
    """What a process does."""

    streams: int = 3
    callers: int = 1
    models: tuple = ("plain", "work", "release", "mlp_pt2", "narrow")
    pause: float = 0.01  # Seconds between two requests; the most.
    reading: float = 0  # Seconds that a reader sleeps before each answer; the most.
    hasty: float = 0  # How many requests and streams have a deadline, or are cancelled.
    cancellers: int = 0


PROFILES = {
    "steady": Profile(streams=4, callers=2),
    "victim": Profile(models=("wide", "plain", "work"), pause=0.005),
    "hasty": Profile(callers=2, hasty=0.3),
    "slow": Profile(streams=2, callers=0, models=("wide", "plain"), reading=0.2, pause=0),
    "poison": Profile(streams=2, models=("poison",)),
    "hungry": Profile(streams=1, callers=0, models=("hungry",), pause=0.02),
    "canceller": Profile(streams=0, callers=0, models=("lonely",), pause=0.1, cancellers=1),
}


class Client:
    def __init__(self, address, http_address, log, table, profile, number, seed):
        self.http = http_address
        self.log, self.table, self.profile = Log(log), wire.Table(table), PROFILES[profile]
        self.number, self.seed, self.address = number, seed, address
        self.stopping = threading.Event()
        self.orders = queue.SimpleQueue()
        self._sessions = itertools.count(1)

    def run(self):
        threads = [threading.Thread(target=self._repeat, args=(open_one, index), daemon=True)
                   for index, open_one in enumerate([Stream] * self.profile.streams +
                                                    [Caller] * self.profile.callers +
                                                    [Canceller] * self.profile.cancellers)]
        for thread in threads:
            thread.start()
        for line in sys.stdin:
            self.orders.put(line.strip())
        self.stopping.set()
        for thread in threads:
            thread.join(2 * PATIENCE)
        return int(any(thread.is_alive() for thread in threads))

    def new_session(self):
        return next(self._sessions)

    def _repeat(self, open_one, index):
        generator = random.Random(f"{self.seed} {self.number} {index}")
        # Two connections: streams share one, and callers the other.
        with grpc.insecure_channel(self.address, options=OPTIONS) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self.stopping.is_set():
                open_one(self, self.new_session(), stub, generator).run()
                time.sleep(generator.random() * 0.05)


class Session:
    """What streams and callers have in common: making requests, and noting answers."""

    def __init__(self, client, number, stub, generator):
        self.client, self.number, self.stub, self.random = client, number, stub, generator
        self.profile = client.profile

    def note(self, event, *fields):
        self.client.log.write(self.number, event, *fields)

    def chance(self, probability):
        return self.random.random() < probability

    def request(self, number, timeout):
        model = self.random.choice(self.profile.models)
        rows, order = self.random.choice((1, 1, 1, 2, 5)), "plain"
        with contextlib.suppress(queue.Empty):
            order = self.client.orders.get_nowait()
        if model == "wide":
            rows = 1
        message = wire.make_request(model, order, (self.client.number, self.number), number, rows,
                                    self.client.table, round(timeout * 1e6))
        return message, (model, order, rows)

    def received(self, number, code, response, details=""):
        """An error's answer has no outputs; `response` may also be None."""
        version, said, added = "-", one_word(details), "-"
        if code == "OK":
            version = response.model_version
            said, added = wire.said(response, self.client.table)
        self.note("recv", number, code, version, said, added)

    def answered(self, answer):
        """Takes an answer of a stream."""
        response, code = answer.infer_response, "OK"
        if answer.error_message:
            code = CODES[response.parameters["millrace_status_code"].int64_param]
        self.received(int(response.id) if response.id.isdecimal() else -1, code, response,
                      answer.error_message)


def one_word(text):
    return "_".join((text or "-").split())[:160] or "-"


class Stream(Session):
    """One stream of some requests."""

    def run(self):
        self.count = self.random.randint(1, 150)
        window = self.random.choice((1, 4, 32))
        hasty = self.chance(self.profile.hasty)
        cancel_at = self.random.randint(1, self.count) if hasty and self.chance(0.5) else 0
        deadline = self.random.uniform(0.05, 2) if hasty and not cancel_at else 0
        how, metadata = [], [("millrace-window", str(window))]
        if self.chance(0.2):
            how.append("unordered")
            metadata.append(("millrace-order", "completion"))
        if self.chance(0.1):
            how.append("drops")
            metadata.append(("millrace-overflow", self.random.choice(
                ("reject", "latest", "drop-oldest"))))
        if deadline:
            how.append(f"deadline={deadline:.3f}")
        self.room = threading.Semaphore(2 * window)
        self.over = False
        self.note("open", "stream", *how)
        call = self.stub.ModelStreamInfer(self.requests(), metadata=metadata,
                                          timeout=deadline or PATIENCE)
        received = 0
        try:
            for answer in call:
                self.answered(answer)
                received += 1
                self.room.release()
                if received == cancel_at:
                    self.note("cancel", 0)
                    call.cancel()
                if self.profile.reading:
                    time.sleep(random.random() * self.profile.reading)
        except grpc.RpcError:
            pass
        self.over = True
        self.room.release()
        trailers = dict(call.trailing_metadata() or ())
        self.note("end", call.code().name, trailers.get("millrace-answered", -1),
                  one_word(call.details()))

    def requests(self):
        """Runs on a thread of gRPC's."""
        for number in range(self.count):
            self.room.acquire()
            if self.over or self.client.stopping.is_set():
                return
            timeout = self.random.uniform(0.001, 0.2) if self.chance(self.profile.hasty) else 0
            message, what = self.request(number, timeout)
            self.note("send", number, *what, f"{timeout:.4f}")
            yield message
            time.sleep(self.random.random() * self.profile.pause)


class Caller(Session):
    """Unary calls, one after the other, or a burst of them at once."""

    def run(self):
        self.note("open", "unary")
        number = 0
        for _ in range(50):
            if self.client.stopping.is_set():
                break
            burst = 12 if self.chance(0.05) else 1
            calls = [self.begin(number + i) for i in range(burst)]
            number += burst
            for index, call, cancelled in calls:
                if cancelled:
                    time.sleep(self.random.random() * CANCELLED_AFTER)
                    self.note("cancel", index)
                    call.cancel()
                self.finish(index, call)
            time.sleep(self.random.random() * self.profile.pause)
        self.note("end", "OK", -1, "-")

    def begin(self, number):
        hasty = self.chance(self.profile.hasty)
        cancelled = hasty and self.chance(0.5)
        deadline = self.random.uniform(0.001, 0.2) if hasty and not cancelled else 0
        message, what = self.request(number, 0)
        self.note("send", number, *what, f"{deadline:.4f}")
        return number, self.stub.ModelInfer.future(message, timeout=deadline or PATIENCE), cancelled

    def finish(self, number, call):
        try:
            response, code, details = call.result(), "OK", ""
            if response.id != str(number):
                number = -1
        except (grpc.RpcError, grpc.FutureCancelledError):
            response, code, details = None, call.code().name, call.details()
        self.received(number, code, response, details)


class Canceller(Session):
    """Streams over one connection by hand, each cancelled after some answers; reads on until the
    connection ends."""

    STREAMS = 20

    def run(self):
        connection, number = None, self.number
        try:
            for _ in range(self.STREAMS):
                one = Cancelled(self.client, number, self.stub, self.random)
                connection = connection or http2.Connection(self.client.address, PATIENCE)
                one.run(connection)
                if one.is_over or self.client.stopping.is_set():
                    break
                number = self.client.new_session()
                time.sleep(self.random.random() * self.profile.pause)
            connection.close()
        except OSError as error:
            one.end("UNAVAILABLE", repr(error))


class Cancelled(Session):
    """One of them."""

    PATH = "/inference.GRPCInferenceService/ModelStreamInfer"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.received_bytes = b""
        self.answers = 0
        self.is_known = False  # The server is, as to the cancel.
        self.is_over = False  # By the server.
        self.has_ended = False
        self.note("open", "raw")

    def run(self, connection):
        stream = connection.open(self.PATH, {"millrace-window": "32"}, self.take)
        count = self.random.randint(2, 30)
        enough = self.random.randint(0, count - 1)
        for number in range(count):
            message, what = self.request(number, 0)
            self.note("send", number, *what, 0)
            connection.send(stream, message.SerializeToString())
        if not self.read(connection, PATIENCE, lambda: self.answers >= enough or self.is_over):
            return self.end("DEADLINE_EXCEEDED", "no answer")
        if self.is_over:
            return self.end("UNAVAILABLE", "the server has ended the stream")
        self.note("cancel", 0)
        connection.cancel(stream)
        cancelled, ping = time.monotonic(), connection.ping()
        if not self.read(connection, PATIENCE, lambda: connection.is_acked(ping)):
            return self.end("DEADLINE_EXCEEDED", "no answer to a ping")
        self.is_known = True
        self.note("acked")
        left = [None]

        def is_forgotten():
            left[0] = self.in_flight()
            return left[0] == 0
        if self.read(connection, FORGOTTEN_WITHIN, is_forgotten):
            self.note("idle", f"{time.monotonic() - cancelled:.4f}")
        elif left[0] is not None:
            self.note("busy", left[0])
        return self.end("CANCELLED" if left[0] is not None else "UNAVAILABLE", "-")

    def read(self, connection, seconds, condition):
        """Whether it came true; reads meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            connection.read(0.05)
        return True

    def take(self, kind, flags, payload):
        """Takes a frame of the stream, whenever it comes."""
        if self.is_known and kind == http2.DATA:
            self.note("late", len(payload))
        elif kind == http2.DATA:
            self.received_bytes += payload
            while len(self.received_bytes) >= 5:
                end = 5 + struct.unpack(">I", self.received_bytes[1:5])[0]
                if len(self.received_bytes) < end:
                    break
                message, self.received_bytes = self.received_bytes[5:end], self.received_bytes[end:]
                self.answered(service_pb2.ModelStreamInferResponse.FromString(message))
                self.answers += 1
        self.is_over |= kind == http2.RST_STREAM or (
            kind in (http2.DATA, http2.HEADERS) and bool(flags & http2.END_STREAM))

    def in_flight(self):
        """How many requests of its model the server has; None where it doesn't say."""
        try:
            with urllib.request.urlopen(f"http://{self.client.http}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        gauges = re.findall(r"^millrace_in_flight_requests{(.*)} (\S+)$", text, re.MULTILINE)
        return sum(float(value) for labels, value in gauges if 'model="lonely"' in labels)

    def end(self, code, details):
        if not self.has_ended:
            self.has_ended = True
            self.note("end", code, -1, one_word(details))


def main():
    address, http_address, log, table, profile, number, seed = sys.argv[1:]
    sys.exit(Client(address, http_address, log, table, profile, int(number), int(seed)).run())


if __name__ == "__main__":
    main()
