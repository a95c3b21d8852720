# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A client of proto/admin.proto, made from the descriptors that the build leaves.

    admin = Admin("127.0.0.1:9001")
    admin.resize(model="identity", replicas=2)
"""

import os
import pathlib

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from server_process import BIN, CHANNEL_OPTIONS

PROTOSET = pathlib.Path(os.environ.get(
    "MILLRACE_PROTOSET", BIN.parent / "generated" / "proto" / "millrace.protoset"))
SERVICE = "millrace.v1.Admin"


def _service():
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(PROTOSET.read_bytes()).file:
        pool.Add(file)
    return pool.FindServiceByName(SERVICE)


class Admin:
    """A method for each of the service's, e.g. list_replicas(); fields are keyword arguments."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        for method in _service().methods:
            name = "".join("_" + c.lower() if c.isupper() else c for c in method.name).lstrip("_")
            setattr(self, name, self._method(method))

    def _method(self, method):
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = self.channel.unary_unary(f"/{SERVICE}/{method.name}", request.SerializeToString,
                                        response.FromString)
        return lambda timeout=None, **fields: call(request(**fields), timeout=timeout)
