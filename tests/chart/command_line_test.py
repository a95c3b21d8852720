# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The command lines that the chart and the examples give the server, taken by the real one.

The container's paths are put below a folder of the test's, where a model is in the repository, and
`--check` has the server load it and leave.
"""

import re
import subprocess

import chart
import pytest
from server_process import BIN, Entry, make_repository

pytestmark = [chart.needs_helm, pytest.mark.skipif(
    not (BIN / "millrace-server").exists(), reason=f"there is no server in {BIN}")]


def run(*command):
    return subprocess.run([str(each) for each in command], capture_output=True, text=True,
                          timeout=300, check=False)


def openssl(*arguments):
    done = run("openssl", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The container's files."""
    folder = tmp_path_factory.mktemp("root")
    for path in ("models", "mnt/models", "run/millrace", "run/millrace-admin",
                 "etc/millrace/tls", "etc/millrace/client-ca", "etc/millrace/tokens"):
        (folder / path).mkdir(parents=True)
    for path in ("models", "mnt/models"):
        make_repository(folder / path, [Entry("identity", name="detector", replicas=1)])
    tls = folder / "etc/millrace/tls"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=millrace", "-addext", "subjectAltName=DNS:millrace",
            "-keyout", tls / "tls.key", "-out", tls / "tls.crt")
    (folder / "etc/millrace/client-ca/ca.crt").write_bytes((tls / "tls.crt").read_bytes())
    (folder / "etc/millrace/tokens/tokens.txt").write_text(f"infer {'0123456789abcdef' * 4}\n")
    return folder


def below(root, argument):
    """The argument with its path, if it has one, below the folder."""
    if argument == "--sandbox=required":  # What this kernel offers isn't the command line's.
        return "--sandbox=on"
    return re.sub(r"(=(?:unix:)?)/", rf"\1{root}/", argument, count=1)


def example(path):
    return chart.objects((chart.EXAMPLES / path).read_text())[0]["spec"]


# Every server that the chart and the examples start, by where it comes from.
SERVERS = {
    **{values: lambda _, values=values: chart.server(chart.rendered(values))
       for values in chart.CI},
    "minimal on 1.29": lambda _: chart.server(chart.rendered("minimal", version="1.29")),
    "a chart of another's": lambda folder: chart.server(chart.rendered_example_chart(folder)),
    "the job": lambda _: chart.server_of(example("sidecar-job.yaml")["template"]["spec"]),
    "KServe": lambda _: example("kserve/cluster-serving-runtime.yaml")["containers"][0],
}


@pytest.mark.parametrize("place", SERVERS)
def test_the_server_takes_the_command_line(root, tmp_path, place):
    arguments = [below(root, each) for each in SERVERS[place](tmp_path)["args"]]
    done = run(BIN / "millrace-server", *arguments, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_command_line_is_refused(root):
    arguments = [below(root, each) for each in chart.server(chart.rendered("minimal"))["args"]]
    for wrong in ("--drain-timeout=soon", "--no-such-flag", "--grpc-listen=nowhere"):
        assert run(BIN / "millrace-server", *arguments, wrong, "--check").returncode == 2


def test_every_value_that_is_a_flag_is_one():
    """Also those that no values of ci/ set."""
    offered = run(BIN / "millrace-server", "--help").stdout
    used = set(re.findall(r"--[a-z][a-z-]+(?==|\n)",
                          (chart.CHART / "templates" / "_container.tpl").read_text()))
    assert len(used) > 20
    assert sorted(used - set(re.findall(r"--[a-z][a-z-]+", offered))) == []


def test_commands_of_the_command_line_make_sense(tmp_path):
    pods = [chart.only(chart.rendered(values), "Pod")["spec"]
            for values in chart.CI if values != "sidecar"]
    pods.append(example("sidecar-job.yaml")["template"]["spec"])
    for container in (each for pod in pods for each in pod["containers"]):
        assert container["command"] == ["/usr/bin/millrace"]
        # Nobody answers there. A command line that makes no sense is told before: exit code 1.
        arguments = [re.sub(r"^(--url=)?(unix:.*|[a-z-]+:\d+)$", rf"\1unix:{tmp_path}/none", each)
                     for each in container["args"]]
        assert arguments != container["args"]
        done = run(BIN / "millrace", *arguments, "--connect-timeout=0.2")
        assert done.returncode == 2, f"{arguments}: {done.stdout}{done.stderr}"
