# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The client of chaos that speaks HTTP/2 by hand, and a server that goes on after a cancel."""

import random
import socket
import struct
import threading
import types

import clients
import http2
from tritonclient.grpc import service_pb2


class Log:
    def __init__(self):
        self.events = []

    def write(self, _session, *event):
        self.events.append(event)


def answer(number):
    message = service_pb2.ModelStreamInferResponse(error_message="no")
    message.infer_response.id = str(number)
    message.infer_response.parameters["millrace_status_code"].int64_param = 13
    text = message.SerializeToString()
    return struct.pack(">BI", 0, len(text)) + text


def make_session():
    client = types.SimpleNamespace(log=Log(), profile=clients.PROFILES["canceller"], table=None)
    return clients.Cancelled(client, 1, None, random.Random(1)), client.log.events


def test_answers_are_taken_from_pieces_until_the_server_knows_of_the_cancel():
    session, events = make_session()
    both = answer(0) + answer(1)
    session.take(http2.DATA, 0, both[:7])
    session.take(http2.DATA, 0, both[7:])
    assert [event[:3] for event in events[1:]] == [("recv", 0, "INTERNAL"), ("recv", 1, "INTERNAL")]
    session.is_known = True
    session.take(http2.HEADERS, http2.END_STREAM, b"status")
    assert len(events) == 3
    session.take(http2.DATA, 0, answer(2))
    assert events[3] == ("late", len(answer(2)))


def test_every_frame_of_a_stream_is_seen_until_the_connection_ends():
    frames = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            peer, _ = listener.accept()
            with peer:
                received = b""
                while http2.frame(http2.PING, 0, 0, struct.pack(">Q", 1)) not in received:
                    received += peer.recv(1 << 16)
                peer.sendall(http2.frame(http2.SETTINGS, 0, 0) + http2.frame(http2.DATA, 0, 1, b"a")
                             + http2.frame(http2.PING, http2.ACK, 0, struct.pack(">Q", 1))
                             + http2.frame(http2.DATA, 0, 1, b"b"))
                while peer.recv(1 << 16):
                    pass
                peer.sendall(http2.frame(http2.DATA, 0, 1, b"c"))
        server = threading.Thread(target=serve)
        server.start()
        connection = http2.Connection("{}:{}".format(*listener.getsockname()), 10)
        stream = connection.open("/path", {}, lambda *frame: frames.append(frame))
        connection.cancel(stream)
        ping = connection.ping()
        while not connection.is_acked(ping):
            connection.read(1)
        connection.close()
        server.join()
    assert [payload for _, _, payload in frames] == [b"a", b"b", b"c"]
