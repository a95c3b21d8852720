# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A millrace-server of a test's own, on free ports, and the model repository that it serves.

    with Server(tmp_path, ["identity", "slow"], replicas=1) as server:
        response = server.stub.ModelInfer(client.request("identity", inputs))

MILLRACE_BIN names the folder of the programs (default: build/bin), MILLRACE_TEST_MODELS that of
the models (default: build/models).
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import reference
from tritonclient.grpc import service_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MILLRACE_BIN", ROOT / "build" / "bin"))
MODELS = pathlib.Path(os.environ.get("MILLRACE_TEST_MODELS", ROOT / "build" / "models"))
TEST_WORKER = BIN.parent / "tests" / "millrace-test-worker"  # Takes the models of delay/, too.
PATIENCE = 120  # Seconds until a test gives up waiting for what should take far less than one.
TWO_CORES = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))

CALL_SECONDS = 2 * PATIENCE  # No call of a test lives longer.
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   ("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", json.dumps(
                       {"methodConfig": [{"name": [{}], "timeout": f"{CALL_SECONDS}s"}]}))]


def eventually(condition, what="", seconds=PATIENCE):
    """Returns the condition's first true value; fails where none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, what or f"{condition} did not come true"
        time.sleep(0.01)
    return value


@dataclasses.dataclass(frozen=True)
class Entry:
    """A test model as a repository shall serve it: perhaps under another name, with fewer rows in
    a batch, or with a shorter queue."""

    model: str
    name: str = ""
    max_batch_size: int | None = None
    max_queue_size: int = 0
    replicas: int = 2
    config: str = ""

    def write(self, repository):
        spec = reference.model(self.model)
        name = self.name or self.model
        folder = repository / name
        folder.mkdir(parents=True)
        for version in spec.versions:
            link_tree(MODELS / spec.folders[0] / self.model / version, folder / version)
        config = spec.config + self.config
        if self.max_queue_size:
            config += ("dynamic_batching { default_queue_policy { "
                       f"max_queue_size: {self.max_queue_size} }} }}\n")
        if self.replicas:
            config += f"instance_group [ {{ kind: KIND_CPU count: {self.replicas} }} ]\n"
        most = spec.max_batch_size if self.max_batch_size is None else self.max_batch_size
        changed = dataclasses.replace(spec, name=name, max_batch_size=most, config=config)
        (folder / "config.pbtxt").write_text(changed.config_text())


def link_tree(source, to):
    """Copies a folder, by hard links where the file system can: links must not leave a repository,
    since the server follows none that does."""
    def link(one, other):
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)
    shutil.copytree(source, to, copy_function=link)


def make_repository(folder, entries):
    for entry in entries:
        (Entry(entry) if isinstance(entry, str) else entry).write(folder)
    return folder


def server_command(*flags):
    return [str(BIN / "millrace-server"), *map(str, flags)]


def stat_of(pid):
    """The state of a process and the fields that follow; None where it has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None


def comm_of(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class Server:
    """Runs from construction to stop(); one that a test has ended itself is not stopped again."""

    def __init__(self, folder, entries=(), *, repositories=(), flags=(), listen=("127.0.0.1:0",),
                 awaits=r"\] ready$", env=None, prefix=()):
        """`prefix` is a command that ends by running the one that follows it, in its process."""
        self.log = []  # Lines.
        repositories = list(repositories)
        if entries:
            repositories.append(make_repository(pathlib.Path(folder) / "repository", entries))
        # It ends with the test run, and has two cores on any machine.
        ports = [flag for address in listen for flag in ("--grpc-listen", address)]
        delay = [] if "--drain-delay" in flags else ["--drain-delay", "0s"]
        operators = [] if "--admin-listen" in flags else ["--admin-listen", "127.0.0.1:0"]
        command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", TWO_CORES,
                   *server_command("--http-listen", "127.0.0.1:0", *ports, *delay, *operators)]
        for repository in repositories:
            command += ["--model-repository", str(repository)]
        self.process = subprocess.Popen([*prefix, *command, *map(str, flags)], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        errors="replace", env={**os.environ, **(env or {})},
                                        start_new_session=True)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self._wait_until_started(awaits)
        except BaseException:
            self.kill()
            raise
        self.channel = self.new_channel()
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.operator_channel = self.new_channel(self.operator_address)
        # For loading and unloading, which operators do.
        self.operator = service_pb2_grpc.GRPCInferenceServiceStub(self.operator_channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- What it says ----

    def _read_log(self):
        for line in self.process.stdout:
            self.log.append(line.rstrip("\n"))
            print(line, end="", file=sys.stderr)  # pytest shows it with a failure.

    def _wait_until_started(self, awaits):
        def started():
            assert self.process.poll() is None, f"ended with {self.process.returncode}"
            return self.logged(awaits)
        eventually(started, f"the server did not say {awaits}")
        self.addresses = [found[1] for found in self.logged(r'gRPC listens on ([^\s"]+)')]
        self.address = self.addresses[0]
        self.operator_address = self.logged(r'operators call ([^\s"]+)')[0][1]
        self.http = self.logged(r'HTTP listens on ([^\s"]+)')[0][1]

    def logged(self, pattern):
        """The matches of a regular expression in the log so far, at most one per line."""
        return [found for line in list(self.log) if (found := re.search(pattern, line))]

    def metrics(self):
        """Every sample, by its name with the labels as in millrace_streams or
        millrace_ready_replicas{model="identity",version="1"}."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def metric(self, name, **labels):
        """The sum over all samples of that name whose labels are as given; 0 where none is."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for sample, value in self.metrics().items()
                   if sample.partition("{")[0] == name and all(w in sample for w in wanted))

    def http_get(self, path):
        """Status and body."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    # ---- Its processes ----

    @property
    def pid(self):
        return self.process.pid

    def processes(self):
        """Every process of this server that still runs, whoever its parent is now."""
        found = []
        for folder in pathlib.Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            stat = stat_of(folder.name)  # State, parent, group, session.
            if stat and stat[0] not in "ZX" and stat[3] == str(self.pid):
                found.append(int(folder.name))
        return found

    def replicas(self):
        """The server's children whose main thread is named `replica`."""
        return [pid for pid in self.processes()
                if comm_of(pid) == "replica" and stat_of(pid)[1] == str(self.pid)]

    def replicas_by_model(self):
        """The replicas in groups, one for each model's shared memory."""
        groups = collections.defaultdict(list)
        for pid in self.replicas():
            maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
            groups[re.search(r"(\d+) +/memfd:millrace-model", maps)[1]].append(pid)
        return list(groups.values())

    def signal_worker(self, pid, number=signal.SIGKILL):
        """To a worker that may have ended; without a process id it would go to the tests' group."""
        assert pid > 0, "a worker that has no process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    @contextlib.contextmanager
    def frozen_replicas(self, pids=None):
        """Stops replicas as a debugger would, so that running batches don't end meanwhile."""
        pids = self.replicas() if pids is None else pids
        for pid in pids:
            self.signal_worker(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            for pid in pids:
                self.signal_worker(pid, signal.SIGCONT)

    def kill_a_replica(self, random):
        """Ends one with SIGKILL and waits until as many as before serve again."""
        ready = self.metric("millrace_ready_replicas")
        restarts = self.metric("millrace_replica_restarts_total")
        self.signal_worker(random.choice(self.replicas()))
        eventually(lambda: self.metric("millrace_replica_restarts_total") > restarts)
        eventually(lambda: self.metric("millrace_ready_replicas") >= ready)

    def descriptors(self):
        return set(map(int, os.listdir(f"/proc/{self.pid}/fd")))

    def descriptors_left(self, count):
        """Has it open no more than so many further file descriptors."""
        open_ones = self.descriptors()
        free = (number for number in itertools.count() if number not in open_ones)
        return self.descriptors_below(next(itertools.islice(free, count, None)))

    @contextlib.contextmanager
    def descriptors_below(self, limit):
        limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_NOFILE, limits)

    def resident_bytes(self):
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # ---- Its clients ----

    def new_channel(self, address=None):
        return grpc.insecure_channel(address or self.address, options=CHANNEL_OPTIONS)

    # ---- Its end ----

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """Waits until it has ended and returns its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop(self):
        """Ends it in order. Every test that stops its server so makes sure that nothing is left."""
        if self.process.poll() is None:
            self.signal()
            code = self.wait()
            assert code == 0, f"exit code {code}"
        assert self.processes() == []

    def kill(self):
        """SIGKILL, for the server and whoever of its workers is left."""
        self.process.kill()
        self.process.wait(PATIENCE)
        for pid in self.processes():
            self.signal_worker(pid)


def refusal_to_start(*flags, timeout=PATIENCE):
    """What a server says that must not start; its exit code must tell so, too."""
    ended = subprocess.run(server_command(*flags), stdout=subprocess.PIPE, timeout=timeout,
                           stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode not in (0, -signal.SIGABRT, -signal.SIGSEGV), ended.stdout
    return ended.stdout
