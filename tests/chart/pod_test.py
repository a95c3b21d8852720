# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The server as the chart's pods run it: the container's own flags, its user, what Kubernetes asks.

Only paths and addresses differ: the container's files lie below a folder, and it listens on free
ports of the loopback.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

import chart
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_process import BIN, PATIENCE, TWO_CORES, eventually, make_repository

USER = 65532
Serving = health_pb2.HealthCheckResponse

pytestmark = [chart.needs_helm, pytest.mark.skipif(
    not (BIN / "millrace-server").exists(), reason=f"there is no server in {BIN}")]


def as_user(user, *groups):
    """What begins a command that another user runs; nothing where that can't be."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid", str(user), "--regid", str(user),
            *(["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"])]


def run_cli(container, url, *, prefix=()):
    """Runs a container of the command line, with another address for its server."""
    arguments = [re.sub(r"^(--url=)?(unix:/.*|[a-z-]+:\d+)$", rf"\g<1>{url}", each)
                 for each in container["args"]]
    assert arguments != container["args"]
    return subprocess.run([*prefix, str(BIN / "millrace"), *arguments], capture_output=True,
                          text=True, timeout=PATIENCE, check=False)


class Container:
    """The server's container of a pod spec, running."""

    ADDRESSES = {"--grpc-listen": "gRPC listens on", "--http-listen": "HTTP listens on",
                 "--health-listen": "probes ask"}

    def __init__(self, folder, pod):
        self.spec = chart.server_of(pod)
        self.grace = pod["terminationGracePeriodSeconds"]
        self.lines = []
        arguments = [re.sub(r"=(0\.0\.0\.0|\[::]):\d+$", "=127.0.0.1:0",
                            re.sub(r"(=(?:unix:)?)/", rf"\1{folder}/", each, count=1))
                     for each in self.spec["args"]]
        self.process = subprocess.Popen(
            [*as_user(USER), "setpriv", "--pdeathsig", "KILL", "taskset", "-c", TWO_CORES,
             str(BIN / "millrace-server"), *arguments], text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
            env={"PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp")})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            print(line, end="")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def address(self, flag):
        """Where it listens, instead of at the address that the flag gives."""
        said = self.ADDRESSES[flag]

        def found():
            assert self.process.poll() is None, "".join(self.lines)
            return next((match[1] for line in list(self.lines)
                         if (match := re.search(rf"{said} ([^\s\"]+)", line))), None)
        return eventually(found, f"the server did not say '{said} …'")

    def ask(self, probe):
        """A probe, as the kubelet asks it: the status, or that no answer came in time."""
        wanted = self.spec[probe]["grpc"]
        flag, = (flag for flag in self.ADDRESSES if flag in chart.flags(self.spec)
                 and chart.flag(self.spec, flag).endswith(f":{wanted['port']}"))
        with grpc.insecure_channel(self.address(flag)) as channel:
            try:
                return health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=wanted["service"]),
                    timeout=self.spec[probe]["timeoutSeconds"]).status
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
                return None

    def wait_for(self, probe, status):
        eventually(lambda: self.ask(probe) == status, f"{probe} is not {status}")

    def wait_until_started(self):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.wait_for(probe, Serving.SERVING)


@pytest.fixture
def folder(tmp_path):
    """The container's files, of which it may write to those that the chart gives it."""
    make_repository(tmp_path / "models", ["identity"])
    for path in ("tmp", "run/millrace", "run/millrace-admin"):
        (tmp_path / path).mkdir(parents=True)
        if os.geteuid() == 0:  # As Kubernetes makes an emptyDir for an fsGroup.
            os.chown(tmp_path / path, 0, USER)
            (tmp_path / path).chmod(0o2775)
    for path in [tmp_path, *tmp_path.parents]:  # pytest's folders are the user's own.
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o011)
    seen = [each for path in (BIN / "millrace-worker", tmp_path / "models")
            for each in ("-a", "-x", str(path))]
    if subprocess.run([*as_user(USER), "test", *seen[1:]], check=False).returncode:
        pytest.skip(f"user {USER} may not run {BIN}")
    return tmp_path


def rendered(values, *settings):
    return chart.rendered(values, *(each for setting in settings for each in ("--set", setting)))


def test_servers_start_answer_and_end_as_kubernetes_is_told(folder):
    found = rendered("minimal", "drain.delaySeconds=4", "admin.enabled=true")
    with Container(folder, chart.pod_spec(found)) as server:
        server.wait_until_started()
        with urllib.request.urlopen(f"http://{server.address('--http-listen')}/metrics") as answer:
            assert b"\nmillrace_ready_replicas{" in answer.read()

        for container in chart.only(found, "Pod")["spec"]["containers"]:  # `helm test`.
            done = run_cli(container, server.address("--grpc-listen"))
            assert done.returncode == 0, done.stderr
            assert ("SERVING" if container["name"] == "health" else "identity") in done.stdout

        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("readinessProbe", Serving.NOT_SERVING)
        server.wait_for("livenessProbe", Serving.SERVING)
        assert server.process.wait(server.grace) == 0
        assert time.monotonic() - begin >= 4  # It had waited for the balancers.


def test_a_sidecar_is_reached_by_the_pods_other_users(folder):
    found = rendered("sidecar")
    pod = chart.pod_spec(found)
    group = pod["securityContext"]["fsGroup"]
    app = {"args": ["models", "--url", "unix:/run/millrace/millrace.sock"]}
    with Container(folder, pod) as server:
        server.wait_until_started()
        url = server.address("--grpc-listen")
        assert url == f"unix:{folder}{chart.flag(server.spec, '--grpc-listen')[5:]}"
        done = run_cli(app, url, prefix=as_user(1000, group))
        assert done.returncode == 0 and "identity" in done.stdout, done.stderr
        if os.geteuid() == 0:
            assert run_cli(app, url, prefix=as_user(1000)).returncode == 2  # Not of the group.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(server.grace) == 0


def test_prometheus_gets_what_the_autoscaler_asks_for(folder):
    metric = chart.only(rendered("cpu"), "HorizontalPodAutoscaler")["spec"]["metrics"][0]
    with Container(folder, chart.pod_spec(rendered("minimal"))) as server:
        server.wait_until_started()
        with urllib.request.urlopen(f"http://{server.address('--http-listen')}/metrics") as answer:
            said = answer.read().decode()
    assert re.search(rf'^{metric["pods"]["metric"]["name"]}{{model="identity"', said, re.MULTILINE)
