# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""`millrace tune`: a plan is found on real replicas, written, and picked up by the server. Judges no
figure: the budgets are tiny."""

import json
import shutil
import subprocess

import client
import pytest
from grpc import StatusCode
from server_process import (BIN, MODELS, PATIENCE, TWO_CORES, Entry, Server, eventually,
                            make_repository)
from tritonclient.grpc import service_pb2

CHOSEN = r"model 'tiny_mlp' version 1 runs as measured on this machine"


def command(*arguments, program="millrace-server"):
    """Has the cores that a Server has, since the plan is for these."""
    return ["taskset", "-c", TWO_CORES, BIN / program, "tune", *map(str, arguments)]


def tune(*arguments, program="millrace-server"):
    done = subprocess.run(command(*arguments, program=program), text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=2 * PATIENCE, check=False)
    print(done.stdout, done.stderr)
    return done


def plans_in(repository):
    return [json.loads(path.read_text()) for path in repository.glob(".millrace/plan-*.json")]


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository", [Entry("tiny_mlp", replicas=0)])


def test_plan_is_written_and_picked_up(repository, tmp_path):
    done = tune(repository / "tiny_mlp", "--budget", "3s", "--json", tmp_path / "report.json",
                "--oversubscribe")
    assert done.returncode == 0
    [model] = json.loads((tmp_path / "report.json").read_text())["models"]
    plans = [plan for plan in model["plans"] if "rows_per_second" in plan]
    assert model["chosen"].items() <= plans[0].items()
    assert all(plan["rows_per_second"] > 0 and plan["p99_ms"] >= plan["p50_ms"] for plan in plans)
    assert all(plan["oversubscribed"] == (plan["replicas"] * plan["threads"] > 2)
               for plan in plans)
    assert any(plan["oversubscribed"] for plan in plans)
    [plan] = plans_in(repository)
    [tuned] = plan["models"]
    assert tuned["model"] == "tiny_mlp"
    with Server(tmp_path, repositories=[repository]) as server:
        assert server.logged(CHOSEN)
        assert len(server.replicas()) == model["chosen"]["replicas"]


def test_models_share_the_cores(tmp_path):
    repository = make_repository(tmp_path / "repository", [
        Entry("tiny_mlp", replicas=0), Entry("identity", replicas=0),
        Entry("dynamic", replicas=0)])
    done = tune("--model-repository", repository, "--budget", "8s")
    assert done.returncode == 0
    [plan] = plans_in(repository)
    layouts = {model["model"]: (model["best"]["replicas"], model["best"]["threads"])
               for model in plan["models"]}
    assert layouts == {"tiny_mlp": (1, 1), "identity": (1, 1)}
    assert "dynamic version 1 was not tuned: input" in done.stdout
    assert "model_warmup" in done.stdout


def test_requests_within_a_time(repository, tmp_path):
    done = tune(repository / "tiny_mlp", "--slo", "20ms", "--budget", "3s", "--json",
                tmp_path / "report.json")
    assert done.returncode == 0
    [model] = json.loads((tmp_path / "report.json").read_text())["models"]
    assert model["plans"][0]["predicted_rate"] > 0
    assert model["verified"]["rows_per_second"] > 0


def test_another_model_joins_the_plan_and_the_same_one_replaces_itself(repository):
    for _ in range(2):
        assert tune(repository / "tiny_mlp", "--latency", "--budget", "3s").returncode == 0
    Entry("identity", replicas=0).write(repository)
    assert tune("identity", "--model-repository", repository, "--budget", "3s").returncode == 0
    [plan] = plans_in(repository)
    assert [model["model"] for model in plan["models"]] == ["tiny_mlp", "identity"]
    assert plan["models"][0]["objective"] == "latency"


def test_what_was_found_is_written_before_the_next_model_is_measured(tmp_path):
    repository = make_repository(tmp_path / "repository", [
        Entry("identity", replicas=0), Entry("tiny_mlp", replicas=0)])
    with subprocess.Popen(command(repository, "--budget", "12s")) as process:
        try:
            [plan] = eventually(lambda: plans_in(repository), "no plan was written")
            assert process.poll() is None
        finally:
            process.kill()
    assert [model["model"] for model in plan["models"]] == ["identity"]


def test_load_that_takes_longer_than_the_budget_is_given_up(repository):
    done = tune(repository, "--budget", "30ms")
    assert done.returncode == 3
    assert "give more" in done.stdout + done.stderr
    assert plans_in(repository) == []


def test_limits_for_clients_do_not_hinder_measuring(tmp_path):
    limits = """
dynamic_batching {
  default_queue_policy { max_queue_size: 1 default_timeout_microseconds: 1 }
}
millrace { batching { overflow: REJECT shed_target_microseconds: 1 } }
"""
    repository = make_repository(tmp_path / "repository",
                                 [Entry("identity", replicas=0, config=limits)])
    done = tune(repository, "--budget", "3s", "--json", tmp_path / "report.json")
    assert done.returncode == 0
    [model] = json.loads((tmp_path / "report.json").read_text())["models"]
    assert [plan for plan in model["plans"] if "error" in plan] == []


def test_plan_of_another_machine_is_not_overwritten(repository, tmp_path):
    named = tmp_path / "plan.json"
    assert tune(repository, "--budget", "3s", "--plan", named).returncode == 0
    plan = json.loads(named.read_text())
    plan["machine"]["cores"] = 64
    named.write_text(json.dumps(plan))
    done = tune(repository, "--budget", "120s", "--plan", named)
    assert done.returncode == 1
    assert "plan.json was measured on another machine (64 cores instead of 2 cores)" in done.stderr
    assert json.loads(named.read_text()) == plan


def test_dry_run_measures_and_writes_nothing(repository):
    done = tune(repository, "--dry-run")
    assert done.returncode == 0
    assert "tiny_mlp version 1: modes: 1, " in done.stdout
    assert "2 x 1, batches of 32" in done.stdout
    assert plans_in(repository) == []


@pytest.mark.parametrize("arguments, code, said", [
    (["nobody"], 1, "'nobody' is no folder"),
    (["nobody", "--model-repository", "."], 1, "nobody"),
    ([], 1, "--model-repository"),
    ([".", "--latency", "--slo", "5ms"], 1, "--latency excludes --slo"),
    ([".", "--budget", "0s"], 1, "--budget"),
])
def test_what_cannot_be_carried_out_is_told(tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    done = tune(*arguments)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_nothing_to_tune(tmp_path):
    repository = make_repository(tmp_path / "repository", [Entry("dynamic", replicas=0)])
    done = tune(repository / "dynamic", "--budget", "1s", program="millrace")
    assert done.returncode == 3
    assert "model_warmup" in done.stdout + done.stderr


def test_server_tunes_at_start_what_has_no_plan(repository, tmp_path):
    with Server(tmp_path, repositories=[repository], flags=["--tune-at-start", "3s"]) as server:
        assert server.logged(CHOSEN)
        assert server.logged(r"tuning .*tiny_mlp")
    assert len(plans_in(repository)) == 1
    with Server(tmp_path, repositories=[repository], flags=["--tune-at-start", "3s"]) as server:
        assert server.logged(CHOSEN)
        assert not server.logged(r"tuning ")


def test_clients_hear_that_a_model_is_not_ready_while_it_is_measured(repository, tmp_path):
    Entry("identity", replicas=0).write(repository)
    with Server(tmp_path, repositories=[repository], awaits=r"tuning identity, tiny_mlp",
                flags=["--tune-at-start", "4s"]) as server:
        def says(name):
            return client.error_of(
                lambda: server.stub.ModelInfer(client.request(name, as_model="identity")))
        for name in ("identity", "tiny_mlp"):
            error = says(name)
            assert error.code() == StatusCode.UNAVAILABLE
            assert name in error.details() and "yet to load it" in error.details()
        assert says("nobody").code() == StatusCode.NOT_FOUND
        index = server.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest()).models
        assert {model.name: model.state for model in index} == {
            "identity": "UNAVAILABLE", "tiny_mlp": "UNAVAILABLE"}
        assert not server.logged(r"\] ready$")
        eventually(lambda: server.logged(r"\] ready$"))
        server.stub.ModelInfer(client.request("identity"))


def test_package_without_config_is_measured(tmp_path):
    repository = tmp_path / "repository"
    (repository / "package" / "1").mkdir(parents=True)
    shutil.copy(MODELS / "good" / "mlp_pt2" / "1" / "model.pt2", repository / "package" / "1")
    with Server(tmp_path, repositories=[repository], flags=["--tune-at-start", "3s"]) as server:
        assert server.logged(r"tuning package")
        assert server.logged(r"model 'package' version 1 runs as measured on this machine")
    done = tune(repository / "package", "--budget", "3s")
    assert done.returncode == 0
    [plan] = plans_in(repository)
    assert [model["model"] for model in plan["models"]] == ["package"]


def test_plan_that_cannot_be_written_is_kept_in_memory(repository, tmp_path):
    (repository / ".millrace").write_text("not a folder")
    with Server(tmp_path, repositories=[repository], flags=["--tune-at-start", "3s"]) as server:
        assert server.logged(CHOSEN)
        assert server.logged(r"kept in memory")
