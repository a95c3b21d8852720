# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Clients whose load follows a profile: unary calls in turn over the servers, and streams that stay
with theirs until it sends them away."""

import asyncio
import collections
import itertools
import random
import struct
import time

import grpc
from servers import MODEL
from tritonclient.grpc import service_pb2, service_pb2_grpc

OVERLOAD = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
DEADLINE = 10.0  # Seconds of a unary call.


def request(number):
    message = service_pb2.ModelInferRequest(model_name=MODEL, id=str(number))
    message.inputs.add(name="INPUT__0", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(struct.pack("<4f", *4 * [number % 1000]))
    return message


class Account:
    """What became of every request."""

    def __init__(self):
        self.sent = 0
        self.latencies = []  # (due, seconds), of those that were answered.
        self.refused = 0  # By an overloaded server: told so, not lost.
        self.lost = collections.Counter()  # By what happened.
        self.unanswered = 0  # Still waiting on streams when the run was over.
        self.moves = 0  # Of streams, from one server to another.
        self.resent = 0

    def answered(self, due):
        self.latencies.append((due, time.monotonic() - due))


class Load:
    """`rate(seconds)` is in requests per second; half of them are unary, half go over streams."""

    def __init__(self, fleet, rate, streams, seed):
        self._fleet, self._rate, self._streams = fleet, rate, streams
        self._random, self._turn = random.Random(seed), itertools.count()
        self._channels = {}
        self.account = Account()

    async def run(self, seconds, grace):
        begin = time.monotonic()
        await asyncio.gather(
            self._calls(begin, seconds),
            *(self._stream(begin, seconds, grace) for _ in range(self._streams)))
        for channel in self._channels.values():
            await channel.close()

    def _next_stub(self):
        servers = list(self._fleet.ready)
        server = servers[next(self._turn) % len(servers)]
        if server not in self._channels:  # A port may be another server's later.
            self._channels[server] = grpc.aio.insecure_channel(
                server.address, options=[("grpc.use_local_subchannel_pool", 1)])
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channels[server])

    async def _arrivals(self, begin, seconds, part):
        """Yields when requests are due, at random; never earlier than then."""
        due = begin
        while True:
            due += self._random.expovariate(part * self._rate(due - begin))
            if due > begin + seconds:
                return
            await asyncio.sleep(max(0, due - time.monotonic()))
            self.account.sent += 1
            yield due

    async def _calls(self, begin, seconds):
        calls = set()
        async for due in self._arrivals(begin, seconds, 0.5):
            calls.add(asyncio.create_task(self._call(due)))
        await asyncio.gather(*calls)

    async def _call(self, due):
        """Without a second try: whoever scales down must not let it fail."""
        try:
            await self._next_stub().ModelInfer(request(self.account.sent), timeout=DEADLINE)
            self.account.answered(due)
        except grpc.aio.AioRpcError as error:
            if error.code() in OVERLOAD:
                self.account.refused += 1
            else:
                self.account.lost[f"unary {error.code().name}: {error.details()}"] += 1

    async def _stream(self, begin, seconds, grace):
        """Keeps what is unanswered in order, and sends it again where a stream has ended."""
        waiting = collections.deque()  # (number, due)
        news, over = asyncio.Event(), False

        async def produce():
            nonlocal over
            numbers = itertools.count()
            async for due in self._arrivals(begin, seconds, 0.5 / self._streams):
                waiting.append((next(numbers), due))
                news.set()
            over = True
            news.set()

        producing = asyncio.create_task(produce())
        first = True
        try:
            async with asyncio.timeout(seconds + grace - (time.monotonic() - begin)):
                while not over or waiting:
                    if not first:
                        self.account.moves += 1
                        self.account.resent += len(waiting)
                        await asyncio.sleep(0.05)
                    first = False
                    await self._one_call(waiting, news, lambda: over)
        except TimeoutError:
            self.account.unanswered += len(waiting)
        await producing

    async def _one_call(self, waiting, news, over):
        """One call's life, until the server ends it or all is answered."""
        call = self._next_stub().ModelStreamInfer()
        sent = -1

        async def send():
            nonlocal sent
            while True:
                news.clear()
                for number, _ in list(waiting):
                    if number > sent:
                        sent = number
                        await call.write(request(number))
                if over():
                    await call.done_writing()
                    return
                await news.wait()

        sending = asyncio.create_task(send())
        try:
            async for answer in call:
                number, due = waiting[0]
                if answer.error_message:
                    self.account.lost["stream: " + answer.error_message] += 1
                elif answer.infer_response.id != str(number):
                    self.account.lost[f"stream: {answer.infer_response.id} for {number}"] += 1
                else:
                    self.account.answered(due)
                waiting.popleft()
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                self.account.lost[f"stream {error.code().name}: {error.details()}"] += 1
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
