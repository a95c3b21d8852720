# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A CPU budget that changes in place, as a container's does that is resized: the plan follows it
while requests are served."""

import contextlib
import os
import subprocess
import time

import pytest
from admin import Admin
from cpu_group import CpuGroup
from server_process import TWO_CORES, Entry, Server, eventually
from steady_streams import streams

ADMIN = ("--admin-listen", "127.0.0.1:0")
ON_CPU = "instance_group [ { kind: KIND_CPU } ]\n"
CORES = [int(core) for core in TWO_CORES.split(",")]


@pytest.fixture
def group():
    made = CpuGroup()
    if made.why_not:
        pytest.skip(made.why_not)
    yield made
    made.remove()


class Watched:
    """A server, and what it makes of its budget."""

    def __init__(self, server):
        self.server = server
        self.admin = Admin(server.logged(r"operators call (\S+)")[0][1])

    def budget(self):
        """Cores of the budget, and how many batches may have of them."""
        samples = self.server.metrics()
        return samples["millrace_cpu_budget_cores"], samples["millrace_batch_cores"]

    def replicas(self, model):
        return list(self.admin.list_replicas(model=model).models[0].replicas)

    def most(self, model):
        return self.admin.list_replicas(model=model).models[0].most

    def ready(self, model):
        return sum(one.ready for one in self.replicas(model))

    def planned_cpus(self, model):
        """Where the plan has them; those that float may run anywhere."""
        return sorted({cpu for one in self.replicas(model) for cpu in one.cpus}) or CORES

    def cpus(self, model):
        """Where the replicas really may run, each."""
        with contextlib.suppress(ProcessLookupError):  # One that is just being replaced.
            return [sorted(os.sched_getaffinity(one.pid)) for one in self.replicas(model)
                    if one.pid]
        return []


@contextlib.contextmanager
def loaded_server(tmp_path, entries, prefix=()):
    """A server all of whose models have streams, each of which must have gone on at the end."""
    with Server(tmp_path, entries, flags=ADMIN, prefix=prefix) as server:
        with streams(server, "identity") as running:
            yield Watched(server)
            for stream in running:
                before = stream.received
                eventually(lambda: stream.received > before + 20 or stream.wrong)
    print(f"slowest answer: {max(stream.slowest for stream in running) * 1e3:.0f} ms")


def takes_effect(what, expected):
    begin = time.monotonic()
    seen = []

    def came():
        seen.append(what())
        return seen[-1] == expected

    try:
        eventually(came, seconds=30)
    except AssertionError:
        pytest.fail(f"{expected} did not come, but {seen[-1]}")
    print(f"{expected} after {time.monotonic() - begin:.1f} s")


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
def test_quota_that_changes_is_followed_and_no_request_is_lost(group, tmp_path):
    entries = [Entry("identity", replicas=0, config=ON_CPU),
               Entry("identity", "fixed", replicas=1),
               Entry("identity", "elastic", replicas=0,
                     config=ON_CPU + "millrace { replicas { min: 1 max: 5 } }\n")]
    group.set_quota(2)
    with loaded_server(tmp_path, entries, group.prefix()) as watched:
        def state():
            return (*watched.budget(), watched.ready("identity"), watched.most("elastic"))

        assert state() == (2, 2, 2, 2)
        fixed = [one.pid for one in watched.replicas("fixed")]
        for cores, whole in ((1, 1), (1.5, 1), (2, 2)):
            group.set_quota(cores)
            takes_effect(state, (cores, whole, whole, whole))
        assert [one.pid for one in watched.replicas("fixed")] == fixed
        assert len(watched.server.logged(r"the CPU budget has changed from")) == 3
        assert watched.server.logged(r"changed from 2 cores .* to 1 core .*quota of 1 core set in")
        # At start, and twice: half a core more changes nothing.
        assert len(watched.server.logged(r"model +version +engine +replica")) == 3


def by_taskset(server, cpus, group):
    del group
    subprocess.run(["taskset", "-a", "-p", "-c", ",".join(map(str, cpus)), str(server.pid)],
                   check=True, stdout=subprocess.DEVNULL)


def by_cpuset(server, cpus, group):
    del server
    group.set_cpus(cpus)


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
@pytest.mark.parametrize("restrict", [by_taskset, by_cpuset])
def test_cpus_that_change_are_followed_and_no_request_is_lost(group, tmp_path, restrict):
    entries = [Entry("identity", replicas=0, config=ON_CPU)]
    with loaded_server(tmp_path, entries, group.prefix()) as watched:
        def state():
            cpus = watched.cpus("identity")
            return (*watched.budget(), len(cpus), sorted({cpu for each in cpus for cpu in each}),
                    watched.planned_cpus("identity"))

        assert state() == (2, 2, 2, CORES, CORES)
        for cpus in (CORES[1:], CORES[:1], CORES):
            restrict(watched.server, cpus, group)
            takes_effect(state, (*[len(cpus)] * 3, cpus, cpus))


@pytest.mark.parametrize("cores", [0.5, 1, 1.5])
def test_plan_at_start_fits_the_quota(group, tmp_path, cores):
    group.set_quota(cores)
    entries = [Entry("identity", replicas=0, config=ON_CPU)]
    with Server(tmp_path, entries, flags=ADMIN, prefix=group.prefix()) as server:
        assert Watched(server).budget() == (cores, 1)
        assert server.logged(r"CPU budget 1 core on .*quota of [\d.]+ cores? set in")
        assert server.logged(r"identity +1 +torchscript +0 +cpu +\S+ +1")
        assert len(server.replicas()) == 1
