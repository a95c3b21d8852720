# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Compares everything that proto/ declares with what stock clients were compiled from.

Every message, field (number, type, label, oneof), enum value and RPC becomes one line of text, so
a difference reads as the lines that only one side has.
"""

import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

ROOT = Path(__file__).parents[2]
Field = descriptor_pb2.FieldDescriptorProto


def field_facts(message, scope):
    for field in message.field:
        label = Field.Label.Name(field.label).removeprefix("LABEL_").lower()
        kind = field.type_name or Field.Type.Name(field.type).removeprefix("TYPE_").lower()
        line = f"{scope}: {field.number} {label} {kind} {field.name}"
        if field.HasField("oneof_index"):
            line += f" oneof {message.oneof_decl[field.oneof_index].name}"
        yield line


def enum_facts(enums, scope):
    for enum in enums:
        for value in enum.value:
            yield f"enum {scope}.{enum.name}: {value.name} = {value.number}"


def message_facts(messages, scope):
    for message in messages:
        name = f"{scope}.{message.name}"
        yield f"{'map entry' if message.options.map_entry else 'message'} {name}"
        yield from field_facts(message, name)
        yield from enum_facts(message.enum_type, name)
        yield from message_facts(message.nested_type, name)


def rpc_facts(services, scope):
    for service in services:
        for rpc in service.method:
            request = "stream " * rpc.client_streaming + rpc.input_type
            response = "stream " * rpc.server_streaming + rpc.output_type
            yield f"rpc {scope}.{service.name}.{rpc.name}({request}) returns ({response})"


def facts(*files):
    found = set()
    for file in files:
        assert file.syntax == "proto3", f"{file.name} is {file.syntax or 'proto2'}"
        found.update(message_facts(file.message_type, f".{file.package}"))
        found.update(enum_facts(file.enum_type, f".{file.package}"))
        found.update(rpc_facts(file.service, f".{file.package}"))
    return found


def facts_of_modules(*modules):
    files = [descriptor_pb2.FileDescriptorProto() for _ in modules]
    for module, file in zip(modules, files):
        module.DESCRIPTOR.CopyToProto(file)
    return facts(*files)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Returns the facts of one package that proto/ declares."""
    output = tmp_path_factory.mktemp("protos") / "all.protoset"
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").glob("*.proto"))
    subprocess.run(["protoc", "--proto_path=.", f"--descriptor_set_out={output}", *protos],
                   cwd=ROOT, check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    return lambda package: facts(*(file for file in files if file.package == package))


def test_inference_is_tritons_plus_the_millrace_field(ours):
    theirs = facts_of_modules(service_pb2, model_config_pb2)
    mine = ours("inference")
    assert len([line for line in theirs if line.startswith("rpc ")]) == 20
    assert theirs - mine == set()
    # What is inside the message is nobody's but ours.
    outside = {line for line in mine - theirs
               if not re.match(r"((message|enum) )?\.inference\.Millrace\b", line)}
    assert outside == {
        ".inference.ModelConfig: 1001 optional .inference.Millrace millrace",
        ".inference.ModelStatistics: 1001 optional .inference.Millrace.Statistics millrace"}


def test_health_is_the_standard_one_without_list(ours):
    theirs = facts_of_modules(health_pb2)
    mine = ours("grpc.health.v1")
    assert len([line for line in mine if line.startswith("rpc ")]) == 2
    assert mine - theirs == set()
    # A later addition to the protocol, which servers need not offer.
    assert all("HealthList" in line for line in theirs - mine)


def test_reflection_v1alpha_is_the_standard_one(ours):
    assert ours("grpc.reflection.v1alpha") == facts_of_modules(reflection_pb2)


def test_reflection_v1_has_the_messages_of_v1alpha(ours):
    alpha = {line.replace(".v1alpha.", ".v1.") for line in ours("grpc.reflection.v1alpha")}
    assert ours("grpc.reflection.v1") == alpha


def test_a_difference_of_any_kind_is_found():
    original = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(original)
    tensor = next(m for m in original.message_type if m.name == "InferParameter")

    def changed(change):
        file = descriptor_pb2.FileDescriptorProto.FromString(original.SerializeToString())
        change(file, file.message_type[list(original.message_type).index(tensor)])
        return facts(file) ^ facts(original)

    def set_number(_, message):
        message.field[0].number = 9

    def set_type(_, message):
        message.field[1].type = Field.TYPE_SINT64

    def set_label(_, message):
        message.field[2].label = Field.LABEL_REPEATED

    def set_name(_, message):
        message.field[2].name = "other"

    def leave_oneof(_, message):
        message.field[3].ClearField("oneof_index")

    def drop_message(file, message):
        file.message_type.remove(message)

    def drop_rpc(file, _):
        del file.service[0].method[3]

    def stream_rpc(file, _):
        file.service[0].method[0].server_streaming = True

    for change in (set_number, set_type, set_label, set_name, leave_oneof, drop_message, drop_rpc,
                   stream_rpc):
        assert changed(change), change.__name__
