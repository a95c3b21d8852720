# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Streams: order, windows, half-close, cancelling, slow readers, and many of them at once."""

import asyncio
import time

import client
import grpc
import pytest
import torch
from server_process import CALL_SECONDS, Entry, Server, eventually
from tritonclient.grpc import service_pb2_grpc

STREAMS = "millrace_streams"
IN_FLIGHT = "millrace_server_in_flight_requests"
RECEIVED = "millrace_received_requests_total"
WINDOW = 32  # The server's default.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    entries = ["identity", "tiny_mlp", "dynamic", "raises",
               Entry("identity", "single", max_batch_size=1, max_queue_size=1, replicas=1)]
    with Server(folder, entries, listen=["127.0.0.1:0", f"unix:{folder}/socket"]) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    yield
    for name in (STREAMS, IN_FLIGHT, "millrace_in_flight_requests", "millrace_queue_depth_rows"):
        eventually(lambda n=name: server.metric(n) == 0, f"{name} = {server.metric(name)}")


def received(server):
    return server.metric(RECEIVED, rpc="ModelStreamInfer")


def stays_at(server, before, count):
    """Waits until the server has read `count` stream requests, and sees that it reads no more."""
    eventually(lambda: received(server) - before == count, f"{received(server) - before} read")
    time.sleep(0.3)
    assert received(server) - before == count


def numbers(count, model="identity", **more):
    return [client.numbered(model, number, **more) for number in range(count)]


def assert_echoes(answers, first=0):
    for number, answer in enumerate(answers, first):
        assert answer.infer_response.id == str(number)
        assert (client.outputs_of(answer.infer_response)["OUTPUT__0"] == number).all()


def test_answers_come_in_request_order(server):
    stream = client.Stream(server.stub)
    stream.send(*numbers(300))
    answers = stream.rest()
    assert len(answers) == 300
    assert_echoes(answers)


def test_one_stream_may_use_several_models(server):
    stream = client.Stream(server.stub)
    models = ["identity", "tiny_mlp", "single", "dynamic"]
    for number in range(120):
        model = models[number % 4]
        stream.send(client.numbered(model, number,
                                    as_model="identity" if model == "single" else None))
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(120)]
    assert [a.infer_response.model_name for a in answers] == models * 30


def test_half_close_finishes_what_was_sent(server):
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*numbers(10))
        stream.half_close()
        eventually(lambda: server.metric(IN_FLIGHT, rpc="ModelStreamInfer") == 10)
    answers = list(stream.call)
    assert len(answers) == 10 and stream.call.code() == grpc.StatusCode.OK
    assert_echoes(answers)


def test_stream_without_a_request_ends_ok(server):
    assert client.Stream(server.stub).rest() == []


@pytest.mark.parametrize("asked, window", [(None, WINDOW), ("1", 1), ("5", 5), ("100000", 256)])
def test_window_bounds_what_is_read(server, asked, window):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub, **({"millrace_window": asked} if asked else {}))
        stream.send(*numbers(2 * window + 3))
        stays_at(server, before, window)
    answers = stream.rest()
    assert len(answers) == 2 * window + 3
    assert_echoes(answers)


def test_full_queue_slows_a_stream_and_loses_nothing(server):
    """`single` runs one row, stages another, and queues a third; the fourth is parked."""
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*numbers(20, "single", as_model="identity"))
        stays_at(server, before, 4)
        assert server.metric("millrace_queue_depth_rows", model="single") <= 1
    answers = stream.rest()
    assert len(answers) == 20
    assert_echoes(answers)
    assert server.metric("millrace_rejections_total", model="single", reason="queue_full") == 0


def test_parked_stream_hinders_no_other_model(server):
    (only,) = (pids for pids in server.replicas_by_model() if len(pids) == 1)
    with server.frozen_replicas(only):
        parked = client.Stream(server.stub)
        parked.send(*numbers(20, "single", as_model="identity"))
        eventually(lambda: server.metric("millrace_queue_depth_rows", model="single") == 1)
        other = client.Stream(server.stub)
        other.send(*numbers(300))
        answers = other.rest()
        assert len(answers) == 300
        assert_echoes(answers)
        assert server.metric("millrace_in_flight_requests", model="single") == 4
    answers = parked.rest()
    assert len(answers) == 20
    assert_echoes(answers)


def test_cancelled_stream_frees_its_places_and_its_queued_work(server):
    with server.frozen_replicas():
        stream = client.Stream(server.stub)
        stream.send(*numbers(10, "single", as_model="identity"))
        eventually(lambda: server.metric("millrace_in_flight_requests", model="single") == 4)
        stream.cancel()
        eventually(lambda: server.metric(STREAMS) == 0)
        # What runs goes on; what was staged, queued or parked is gone.
        eventually(lambda: server.metric("millrace_in_flight_requests", model="single") == 1)
        assert server.metric("millrace_queue_depth_rows", model="single") == 0


def test_stream_with_a_full_window_is_cancelled_at_once(server):
    before = received(server)
    with server.frozen_replicas():
        stream = client.Stream(server.stub, millrace_window=4)
        stream.send(*numbers(20))
        stays_at(server, before, 4)
        stream.cancel()
        eventually(lambda: server.metric(STREAMS) == 0)
    assert received(server) - before == 4


def test_neighbours_of_a_cancelled_stream_get_their_answers(server):
    with server.frozen_replicas():
        streams = [client.Stream(server.stub) for _ in range(8)]
        for stream in streams:
            stream.send(*numbers(20))
        eventually(lambda: server.metric(IN_FLIGHT, rpc="ModelStreamInfer") == 160)
        for stream in streams[::2]:
            stream.cancel()
    for stream in streams[1::2]:
        answers = stream.rest()
        assert len(answers) == 20
        assert_echoes(answers)


def test_streams_are_cancelled_at_any_moment(server):
    for moment in range(30):
        stream = client.Stream(server.stub)
        stream.send(*numbers(40))
        assert_echoes(stream.answers(moment))
        stream.cancel()


def test_channel_that_breaks_off_frees_its_streams(server):
    with server.frozen_replicas():
        channel = server.new_channel()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        streams = [client.Stream(stub) for _ in range(5)]
        for stream in streams:
            stream.send(*numbers(10))
        eventually(lambda: server.metric(STREAMS) == 5)
        channel.close()
        eventually(lambda: server.metric(STREAMS) == 0)
    for stream in streams:
        stream.half_close()


def test_deadline_of_a_stream_ends_it(server):
    with server.frozen_replicas():
        call = server.stub.ModelStreamInfer(iter(numbers(3)), timeout=0.5)
        assert client.error_of(lambda: next(call)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: server.metric(STREAMS) == 0)


def test_slow_reader_is_slowed_and_the_servers_memory_bounded(server):
    """A quarter of a gigabyte wants in; what isn't read isn't answered, and so isn't taken in."""
    megabyte = {"INPUT__0": torch.ones(1, 1 << 18)}
    count = 250
    warm = client.Stream(server.stub)
    warm.send(*(client.request("dynamic", megabyte) for _ in range(8)))
    assert len(warm.rest()) == 8
    before, resident = received(server), server.resident_bytes()
    stream = client.Stream(server.stub, millrace_window=16)
    stream.send(*(client.request("dynamic", megabyte, id=str(n)) for n in range(count)))
    eventually(lambda: received(server) - before >= 16)
    time.sleep(1)
    # The window, and what the transport's own buffers on both sides have swallowed.
    assert received(server) - before <= 48
    assert server.resident_bytes() - resident < 128 << 20
    # Others are served meanwhile.
    quick = client.Stream(server.stub)
    quick.send(*numbers(50))
    assert_echoes(quick.rest())
    answers = stream.rest()
    assert client.ids(answers) == [str(number) for number in range(count)]
    assert all(len(a.infer_response.raw_output_contents[0]) == 1 << 20 for a in answers)


def test_500_streams_at_once_each_in_order(server):
    count, requests = 500, 6

    async def one(stub, number, barrier):
        call = stub.ModelStreamInfer(timeout=CALL_SECONDS)
        for i in range(requests):
            await call.write(client.numbered("tiny_mlp" if i % 3 == 2 else "identity",
                                             number * requests + i))
            if i == 0:  # Nobody goes on before all are open.
                assert (await call.read()).infer_response.id == str(number * requests)
                await barrier.wait()
        await call.done_writing()
        for i in range(1, requests):
            assert (await call.read()).infer_response.id == str(number * requests + i)
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK

    async def all_of_them():
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            barrier = asyncio.Barrier(count + 1)
            tasks = [asyncio.create_task(one(stub, number, barrier)) for number in range(count)]
            while barrier.n_waiting < count:
                for task in tasks:
                    if task.done():
                        task.result()  # Raises what went wrong.
                await asyncio.sleep(0.01)
            assert server.metric(STREAMS) == count
            await barrier.wait()
            await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(all_of_them(), CALL_SECONDS))


def test_timings_come_on_request(server):
    stream = client.Stream(server.stub)
    stream.send(client.numbered("identity", 0),
                client.numbered("identity", 1, rows=5, parameters={"millrace_timings": True}))
    without, timed = (answer.infer_response.parameters for answer in stream.rest())
    assert set(without) == {"triton_final_response"}
    assert set(timed) - set(without) == {"millrace_queue_us", "millrace_fill_us",
                                         "millrace_execute_us", "millrace_batch_size",
                                         "millrace_replica"}
    assert timed["millrace_batch_size"].int64_param >= 5
    assert timed["millrace_replica"].int64_param in (0, 1)
    assert timed["millrace_queue_us"].int64_param >= 0
    assert timed["millrace_execute_us"].int64_param > 0


def test_unix_socket_serves_as_well(server):
    assert len(server.addresses) == 2
    with server.new_channel(server.addresses[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(client.numbered("identity", 3)).id == "3"
        stream = client.Stream(stub)
        stream.send(*numbers(50))
        assert_echoes(stream.rest())


def test_requests_of_several_rows_are_split_and_joined(server):
    """`single` runs one row at a time and queues one, but a request may bring more."""
    stream = client.Stream(server.stub)
    stream.send(*numbers(10, "single", rows=7, as_model="identity"))
    answers = stream.rest()
    assert len(answers) == 10
    assert_echoes(answers)
    assert all(list(a.infer_response.outputs[0].shape) == [7, 16] for a in answers)


def test_two_streams_that_use_two_models_in_opposite_order_dont_block_each_other(tmp_path):
    smallest = {"max_batch_size": 1, "max_queue_size": 1, "replicas": 1}
    names = ["a", "b"]
    with Server(tmp_path, [Entry("identity", name, **smallest) for name in names],
                flags=["--stream-window", 1, "--io-threads", 1]) as server:
        streams = [client.Stream(server.stub) for _ in range(6)]
        for number, stream in enumerate(streams):
            order = names if number % 2 == 0 else names[::-1]
            stream.send(*(client.numbered(order[i % 2], i, as_model="identity")
                          for i in range(100)))
        for stream in streams:
            answers = stream.rest()
            assert len(answers) == 100
            assert_echoes(answers)
