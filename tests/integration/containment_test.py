# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What hostile models try, and that nothing comes of it: the server serves its other models."""

import ctypes
import errno
import os
import pathlib
import platform
import re
import sys

import client
import hostile_models
import pytest
import reference
import torch
from grpc import StatusCode
from memory_group import MemoryGroup
from server_process import MODELS, Server, comm_of, eventually, stat_of

NOT_ALLOWED, NO_ACCESS, UNKNOWN = errno.EPERM, errno.EACCES, errno.ENOSYS
# By their numbers in hostile_package.cc: what is tried, and what it must bring.
ATTACKS = [
    ("reading a secret file", NO_ACCESS),
    ("listing the root", NO_ACCESS),
    ("making a file", NOT_ALLOWED),
    ("opening for writing", NOT_ALLOWED),
    ("removing a file", NOT_ALLOWED),
    ("a socket", NOT_ALLOWED),
    ("a local socket", NOT_ALLOWED),
    ("a fork", NOT_ALLOWED),
    ("a vfork", NOT_ALLOWED),
    ("a clone whose flags are hidden", UNKNOWN),
    ("another program", NOT_ALLOWED),
    ("killing the server", NOT_ALLOWED),
    ("killing a thread of the server", NOT_ALLOWED),
    ("killing a sibling", NOT_ALLOWED),
    ("killing everything", NOT_ALLOWED),
    ("tracing a sibling", NOT_ALLOWED),
    ("reading a sibling's memory", NOT_ALLOWED),
    ("opening a sibling's memory", NO_ACCESS),
    ("opening the server's memory", NO_ACCESS),
    ("the server's environment", NO_ACCESS),
    ("the server's open files", NO_ACCESS),
    ("a handle of the server", NOT_ALLOWED),
    ("taking a descriptor", NOT_ALLOWED),
    ("lowering the server's limits", NOT_ALLOWED),
    ("lowering a sibling's limits", NOT_ALLOWED),
    ("pinning the server", NOT_ALLOWED),
    ("slowing the server", NOT_ALLOWED),
    ("outliving the server", NOT_ALLOWED),
    ("signals by a descriptor", NOT_ALLOWED),
    ("io_uring", NOT_ALLOWED),
    ("a file in memory", NOT_ALLOWED),
    ("namespaces", NOT_ALLOWED),
    ("leaving its process group", NOT_ALLOWED),
    ("bpf", NOT_ALLOWED),
    ("memory that is shared", NOT_ALLOWED),
    ("memory that grows as a stack does", NOT_ALLOWED),
]
FORK = [name for name, _ in ATTACKS].index("a fork")
FILL_MEMORY, FILL_WITH_READ_ONLY_MEMORY, SPIN = 40, 41, 42
WHEN_LOADED, NOW, BEYOND = 1, 2, 3
LIMITS = """\
millrace { supervision { memory_limit_bytes: 1000000000 execution_limit_microseconds: 2000000 } }
"""
SECRET = "DATABASE_PASSWORD=hunter2"


LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0  # The same number on every machine.


# Where libtorch lies in a folder that only root may pass, workers of root can't leave root.
STAYS_ROOT = os.geteuid() == 0 and not all(
    folder.stat().st_mode & 1 for folder in pathlib.Path(torch.__file__).resolve().parents)
ALL_OF_IT = ["--sandbox", "on" if STAYS_ROOT else "required"]


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_bytes(b"key!")
    path.chmod(0o644)
    for folder in list(path.parents)[:3]:  # Nothing but the sandbox keeps anyone from it.
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory, secret):
    if not LANDLOCK:
        pytest.skip("this kernel has no Landlock, or refuses it")
    hostile = tmp_path_factory.mktemp("hostile")
    hostile_models.write_package(hostile, secret, "native", LIMITS, "FILLS_WHEN_LOADED")
    hostile_models.write_script(hostile, "reads", hostile_models.ReadsInForward(str(secret)))
    hostile_models.write_script(hostile, "writes", hostile_models.WritesInForward(str(secret)))
    hostile_models.write_script(hostile, "fills", hostile_models.FillsInForward(), LIMITS)
    hostile_models.write_script(hostile, "sets", hostile_models.ReadsWhenLoaded(str(secret)))
    hostile_models.write_script(hostile, "fills_early",
                                hostile_models.FillsOrSpinsWhenLoaded(spins=False), LIMITS)
    with Server(tmp_path_factory.mktemp("server"), ["identity", "mlp_pt2", "fork_model"],
                repositories=[hostile], flags=ALL_OF_IT,
                env=dict([SECRET.split("=")])) as running:
        yield running


@pytest.fixture(autouse=True)
def others_are_served(request):
    """After every test of the server with the hostile models."""
    yield
    if "server" not in request.fixturenames:
        return
    server = request.getfixturevalue("server")
    for model in ("identity", "mlp_pt2"):
        inputs = reference.random_inputs(model, 3)
        client.assert_answers(server.stub.ModelInfer(client.request(model, inputs)), model, inputs)


def call(server, model, row):
    message = client.service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="INPUT__0", datatype="FP32", shape=[1, len(row)])
    message.raw_input_contents.append(reference.to_bytes(torch.tensor([row])))
    return client.outputs_of(server.stub.ModelInfer(message))["OUTPUT__0"][0]


def attempt(server, when, attack, other=0):
    return int(call(server, "native", [float(when), float(attack), float(other)] + [0.0] * 61)[0])


def sibling(server):
    """A replica of another model."""
    hostile = server.metric("millrace_ready_replicas", model="native")
    assert hostile == 1
    attempt(server, 0, 0)
    groups = sorted(server.replicas_by_model(), key=len)
    return groups[-1][0]


@pytest.mark.parametrize("attack", range(len(ATTACKS)), ids=[name for name, _ in ATTACKS])
def test_native_code_that_runs_is_contained(server, attack):
    number = attempt(server, NOW, attack, sibling(server))
    print(ATTACKS[attack][0], "brought", errno.errorcode.get(number, number))
    assert number == ATTACKS[attack][1]


@pytest.mark.parametrize("attack", range(len(ATTACKS)), ids=[name for name, _ in ATTACKS])
def test_native_code_that_is_loaded_is_contained(server, attack):
    number = attempt(server, WHEN_LOADED, attack)
    print(ATTACKS[attack][0], "brought", errno.errorcode.get(number, number))
    # A template forks; what else it forks ends with it.
    assert number == (0 if attack == FORK else ATTACKS[attack][1])


@pytest.mark.parametrize("attack", [FILL_MEMORY, FILL_WITH_READ_ONLY_MEMORY])
@pytest.mark.parametrize("when", [WHEN_LOADED, NOW])
def test_native_code_that_fills_memory_gets_no_more(server, when, attack):
    assert attempt(server, when, attack) == errno.ENOMEM


def test_native_code_that_spins_is_ended(server):
    restarts = server.metric("millrace_replica_restarts_total", model="native")
    for _ in range(2):  # The first runs of a shape are exempt.
        attempt(server, 0, 0)
    error = client.error_of(lambda: attempt(server, NOW, SPIN))
    assert error.code() == StatusCode.INTERNAL and "hung" in error.details()
    eventually(lambda: server.metric("millrace_replica_restarts_total", model="native")
               >= restarts + 3)
    eventually(lambda: server.metric("millrace_ready_replicas", model="native") == 1)


def test_native_code_that_writes_beyond_its_batch_harms_its_model_at_most(server):
    row = [float(BEYOND)] + [0.0] * 63
    try:
        call(server, "native", row)
    except client.grpc.RpcError as error:
        assert error.code() == StatusCode.INTERNAL, error
    eventually(lambda: server.metric("millrace_ready_replicas", model="native") == 1)
    assert attempt(server, NOW, 0) == NO_ACCESS


def test_torchscript_that_reads_or_writes_a_file_raises(server, secret):
    for model in ("reads", "writes"):
        assert call(server, model, [1.0, 2.0, 3.0, 4.0]).tolist() == [1, 2, 3, 4]
        error = client.error_of(lambda: call(server, model, [-1.0, 0.0, 0.0, 0.0]))
        assert error.code() == StatusCode.INTERNAL
        assert re.search("unable to open file.*(Permission denied|not permitted)",
                         error.details(), re.DOTALL), error.details()
    assert secret.read_bytes() == b"key!"


def test_torchscript_that_fills_memory_is_told_so(server):
    error = client.error_of(lambda: call(server, "fills", [-1.0, 0.0, 0.0, 0.0]))
    assert error.code() == StatusCode.RESOURCE_EXHAUSTED
    assert "can't allocate memory" in error.details()
    assert call(server, "fills", [1.0, 2.0, 3.0, 4.0]).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("model, reason", [("sets", "unable to open file"),
                                           ("fills_early", "can't allocate memory")])
def test_torchscript_that_reads_a_file_or_fills_memory_while_it_is_loaded_is_not_served(
        server, model, reason):
    error = client.error_of(lambda: call(server, model, [1.0, 2.0, 3.0, 4.0]))
    assert error.code() == StatusCode.UNAVAILABLE
    assert reason in error.details(), error.details()


def test_code_that_spins_while_it_is_loaded_is_ended(tmp_path, secret):
    hostile = tmp_path / "hostile"
    hostile_models.write_package(hostile, secret, "native", when_loaded="SPINS_WHEN_LOADED")
    hostile_models.write_script(hostile, "script",
                                hostile_models.FillsOrSpinsWhenLoaded(spins=True))
    with Server(tmp_path, ["identity"], repositories=[hostile],
                flags=["--load-timeout", "15s"]) as server:
        for model in ("native", "script"):
            error = client.error_of(lambda: server.stub.ModelInfer(
                client.service_pb2.ModelInferRequest(model_name=model)))
            assert error.code() == StatusCode.UNAVAILABLE
            assert "took longer than 15s" in error.details(), error.details()
        eventually(lambda: len(server.processes()) == 4)  # Itself, and those of `identity`.


def test_replicas_have_only_descriptors_of_their_own_and_no_secret(server):
    for pid in server.replicas():
        folder = pathlib.Path(f"/proc/{pid}/fd")
        held = {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}
        assert sorted(held) == [0, 1, 2, 3, 4], held
        assert held[0] == "/dev/null" and "socket:" in held[3] and "eventfd" in held[4], held
        assert b"DATABASE_PASSWORD" not in pathlib.Path(f"/proc/{pid}/environ").read_bytes()


def test_workers_are_nobody_with_nothing_left_to_gain(server):
    workers = [pid for pid in server.processes() if comm_of(pid) in ("template", "replica")]
    assert len(workers) >= 10
    for pid in workers:
        status = dict(line.split(":\t", 1) for line in
                      pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        forked = comm_of(pid) == "replica"
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert int(status["Seccomp_filters"]) == 1 + forked
        for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[kind], 16) == 0
        if os.geteuid() == 0 and not STAYS_ROOT:
            assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
            assert status["Groups"].strip() == ""


def test_what_a_template_forks_on_its_own_ends_with_it(tmp_path, secret):
    hostile_models.write_package(tmp_path / "hostile", secret, "native")
    server = Server(tmp_path, ["identity"], repositories=[tmp_path / "hostile"])
    templates = {pid for pid in server.processes() if comm_of(pid) == "template"}
    strays = [pid for pid in templates if stat_of(pid)[1] in map(str, templates)]
    assert strays, "the hostile code forked nothing"
    parents = {int(stat_of(pid)[1]) for pid in strays}
    for parent in parents:
        server.signal_worker(parent)
    eventually(lambda: not set(strays) & set(server.processes()))
    server.stop()  # And sees that nothing is left.


def test_folders_of_packages_are_removed_whatever_happens(tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    outer.chmod(0o777)
    for folder in list(tmp_path.parents)[:2]:
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    left = outer / "millrace-package-left"
    left.mkdir()
    (left / "model.so").write_bytes(b"of a server that was killed")
    with Server(tmp_path, ["mlp_pt2"], env={"TMPDIR": str(outer)}) as server:
        inputs = reference.random_inputs("mlp_pt2", 3)
        client.assert_answers(server.stub.ModelInfer(client.request("mlp_pt2", inputs)),
                              "mlp_pt2", inputs)
        assert list(outer.iterdir()) == []


# Refuses two of the kernel's calls to itself and to the command that follows, as an old kernel or a
# container would: landlock_create_ruleset (444) and, with "all", seccomp (317).
REFUSING = """\
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
refused = [444] + [317] * (sys.argv[1] == "all")
program = struct.pack("HBBI", 0x20, 0, 0, 0)
for number in refused:
    program += struct.pack("HBBI", 0x15, 0, 1, number) + struct.pack("HBBI", 6, 0, 0, 0x50026)
program += struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"""


def refusing(what):
    return [sys.executable, "-c", REFUSING, what]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("what", ["landlock", "all"])
def test_what_the_kernel_refuses_is_left_out_with_a_warning(tmp_path, what):
    with Server(tmp_path, ["identity", "mlp_pt2"], prefix=refusing(what)) as server:
        warnings = [found[1] for found in server.logged(r" W .*'.*' version 1: the sandbox lacks (.*)")]
        landlock = "Landlock: asking the kernel for Landlock: Function not implemented (errno 38)"
        assert warnings.count(landlock) == 2, warnings
        filters = [line for line in warnings if line.startswith("the system call filter: ")]
        assert len(filters) == (2 if what == "all" else 0), warnings
        assert len(warnings) == 2 + len(filters) + (2 if STAYS_ROOT else 0), warnings
        for model in ("identity", "mlp_pt2"):
            inputs = reference.random_inputs(model, 3)
            client.assert_answers(server.stub.ModelInfer(client.request(model, inputs)), model,
                                  inputs)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.skipif(STAYS_ROOT, reason="another part would be told first")
def test_a_model_is_not_served_where_the_sandbox_is_required_and_refused(tmp_path):
    with Server(tmp_path, ["identity"], prefix=refusing("landlock"),
                flags=["--sandbox", "required"]) as server:
        error = client.error_of(lambda: server.stub.ModelInfer(client.request("identity")))
        assert error.code() == StatusCode.UNAVAILABLE
        assert "the sandbox is required, but lacks Landlock" in error.details()


def test_no_sandbox_where_it_is_off(tmp_path):
    with Server(tmp_path, ["identity"], flags=["--sandbox", "off"]) as server:
        for pid in server.replicas():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            assert "Seccomp:\t0" in status and "NoNewPrivs:\t0" in status
        assert not server.logged("sandbox lacks")


@pytest.fixture
def small_cgroup():
    """A memory cgroup of 1.5 GB."""
    group = MemoryGroup()
    if group.why_not:
        pytest.skip(group.why_not)
    group.leave(1_500_000_000)
    yield group
    group.remove()


def test_the_kernel_kills_the_replica_that_takes_too_much_and_nobody_else(tmp_path, small_cgroup):
    unlimited = "millrace { supervision { memory_limit_bytes: 1000000000000 } }\n"
    hostile_models.write_script(tmp_path / "hostile", "fills", hostile_models.FillsInForward(),
                                unlimited)
    with Server(tmp_path, ["identity"], repositories=[tmp_path / "hostile"],
                prefix=small_cgroup.prefix()) as server:
        for pid in server.processes():
            assert str(pid) in (small_cgroup.path / "cgroup.procs").read_text().split()
        error = client.error_of(lambda: call(server, "fills", [-1.0, 0.0, 0.0, 0.0]))
        assert error.code() == StatusCode.INTERNAL and "died" in error.details(), error
        assert server.logged(r"model 'fills' .* was killed by signal 9")
        assert server.metric("millrace_replica_restarts_total", model="identity") == 0
        assert call(server, "fills", [1.0, 2.0, 3.0, 4.0]).tolist() == [1, 2, 3, 4]
        inputs = reference.random_inputs("identity", 3)
        client.assert_answers(server.stub.ModelInfer(client.request("identity", inputs)),
                              "identity", inputs)


def malformed(model, file):
    """The file of a test model, spoilt in the way that `model` names."""
    whole = (MODELS / "good" / file).read_bytes()
    if model == "cut_off":
        return whole[:-len(whole) // 3]
    if model == "longer":
        return whole + b"\0" * 64
    if model == "scrambled":  # The pickle's bytes; the archive around it is sound.
        at = whole.index(b"\x80\x02")
        return whole[:at] + b"\x80\x02" + b"\xff" * 24 + whole[at + 26:]
    if model == "climbs":
        return whole.replace(b"model/data/aotinductor", b"../../data/aotinductor")
    raise AssertionError(model)


MALFORMED = {
    "cut_off": ("identity", "model.pt", "is no zip archive, is cut off"),
    "longer": ("identity", "model.pt", "has bytes behind its end"),
    "scrambled": ("identity", "model.pt", "could not be read as TorchScript"),
    "climbs": ("mlp_pt2", "model.pt2", "whose name climbs"),
}


def test_malformed_files_are_load_errors(tmp_path):
    repository = tmp_path / "malformed"
    for model, (original, file, _) in MALFORMED.items():
        version = repository / model / "1"
        version.mkdir(parents=True)
        (version / file).write_bytes(malformed(model, f"{original}/1/{file}"))
        spec = reference.model(original)
        (repository / model / "config.pbtxt").write_text(
            spec.config_text().replace(f'"{original}"', f'"{model}"', 1))
    with Server(tmp_path, ["identity"], repositories=[repository]) as server:
        for model, (original, _, reason) in MALFORMED.items():
            error = client.error_of(lambda: server.stub.ModelInfer(
                client.request(model, as_model=original)))
            assert error.code() == StatusCode.UNAVAILABLE
            assert reason in error.details(), error.details()
        inputs = reference.random_inputs("identity", 3)
        client.assert_answers(server.stub.ModelInfer(client.request("identity", inputs)),
                              "identity", inputs)
