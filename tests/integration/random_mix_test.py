# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Everything at once, at random, from a printed seed: models, shapes, rows, errors, windows,
cancelled streams and killed replicas. Every stream gets each of its answers once, in its place."""

import asyncio
import random

import client
import grpc
import pytest
import reference
import torch
from grpc import StatusCode
from server_process import CALL_SECONDS, CHANNEL_OPTIONS, Entry, Server, eventually
from tritonclient.grpc import service_pb2_grpc

STREAMS = 40
MOST_REQUESTS = 60
KILLS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    entries = ["tiny_mlp", "two_in_two_out", "dynamic", "no_batch", "raises", "mlp_pt2",
               Entry("identity", "narrow", max_batch_size=2, max_queue_size=2, replicas=1)]
    with Server(tmp_path_factory.mktemp("server"), entries) as running:
        yield running


def random_request(generator, number):
    """A request and what must come of it: a status, and where that is OK the model and inputs."""
    name = generator.choice(["tiny_mlp", "two_in_two_out", "dynamic", "no_batch", "raises",
                             "mlp_pt2", "narrow"])
    model = "identity" if name == "narrow" else name
    inputs = reference.random_inputs(model, generator.choice([1, 1, 1, 2, 5, 11]),
                                     seed=generator.randrange(1 << 30),
                                     size=generator.choice([1, 3, 8]))
    status = StatusCode.OK
    if model == "raises" and generator.random() < 0.3:
        inputs["INPUT__0"][-1, 0] = -1
        status = StatusCode.INTERNAL
    message = client.request(name, inputs, id=str(number), as_model=model)
    if generator.random() < 0.1:
        status, change = generator.choice([
            (StatusCode.NOT_FOUND, lambda: setattr(message, "model_name", "nobody")),
            (StatusCode.NOT_FOUND, lambda: setattr(message, "model_version", "77")),
            (StatusCode.INVALID_ARGUMENT, lambda: message.inputs[0].shape.append(1)),
            (StatusCode.INVALID_ARGUMENT, lambda: message.raw_input_contents.append(b"x")),
            (StatusCode.INVALID_ARGUMENT, lambda: setattr(message.inputs[0], "name", "nobody")),
        ])
        change()
    return message, status, model, inputs


def assert_is(answer, expected):
    message, status, model, inputs = expected
    assert answer.infer_response.id == message.id
    assert client.status_of(answer) == status, answer.error_message
    if status == StatusCode.OK:
        client.assert_answers(answer.infer_response, model, inputs)


async def run_stream(stub, generator):
    """Returns how many answers came; a stream that is to be cancelled checks those before."""
    sent = [random_request(generator, number)
            for number in range(generator.randint(1, MOST_REQUESTS))]
    cancel_after = generator.randrange(len(sent)) if generator.random() < 0.25 else None
    window = str(generator.choice([1, 2, 8, 32, 256]))
    call = stub.ModelStreamInfer(metadata=(("millrace-window", window),),
                                 timeout=CALL_SECONDS)

    async def send():
        for message, *_ in sent:
            await call.write(message)
            if generator.random() < 0.05:
                await asyncio.sleep(generator.random() / 50)
        await call.done_writing()

    sender = asyncio.create_task(send())
    for number, expected in enumerate(sent):
        if number == cancel_after:
            call.cancel()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            return number
        answer = await call.read()
        assert answer is not grpc.aio.EOF, f"ended after {number} of {len(sent)} answers"
        assert_is(answer, expected)
    await sender
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == StatusCode.OK
    return len(sent)


async def run_all(server, generator):
    async def kill_replicas():
        for _ in range(KILLS):
            await asyncio.to_thread(server.kill_a_replica, generator)

    async with grpc.aio.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        killer = asyncio.create_task(kill_replicas())
        answers = 0
        while True:  # At least once, and until every kill has happened under load.
            answers += sum(await asyncio.gather(*(
                run_stream(stub, random.Random(generator.random())) for _ in range(STREAMS))))
            if killer.done():
                await killer
                return answers


def test_every_answer_comes_once_and_in_its_place(server, seed):
    torch.set_num_threads(1)
    generator = random.Random(seed)
    answers = asyncio.run(asyncio.wait_for(run_all(server, generator), CALL_SECONDS))
    assert answers > STREAMS
    assert server.metric("millrace_replica_restarts_total") >= KILLS
    for name in ("millrace_streams", "millrace_server_in_flight_requests",
                 "millrace_in_flight_requests", "millrace_queue_depth_rows",
                 "millrace_busy_replicas"):
        eventually(lambda n=name: server.metric(n) == 0, f"{name}={server.metric(name)}")
