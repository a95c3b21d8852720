# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Facts about what the chart renders, where one place has to agree with another."""

import json
import re
import subprocess
import sys

import chart
import pytest
import yaml

pytestmark = chart.needs_helm

VERSION = (chart.ROOT / "VERSION").read_text().strip()
VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
DEPLOYED = [values for values in chart.CI if values != "sidecar"]
MINIMAL = ("-f", chart.CI["minimal"])

each_values = pytest.mark.parametrize("values", chart.CI)
each_deployment = pytest.mark.parametrize("values", DEPLOYED)


def labels_of_pods(found):
    return chart.only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]


# ---- The chart itself ---------------------------------------------------------------------------


def test_there_are_values_for_each_way_to_run_it():
    assert set(chart.CI) == {"minimal", "cpu", "gpu", "sidecar", "tls", "keda"}


@pytest.mark.parametrize("values", [None, *chart.CI])
def test_lint_finds_nothing(values):
    done = chart.helm("lint", "--strict", chart.CHART,
                      *(["-f", chart.CI[values]] if values else []))
    assert done.returncode == 0, done.stdout
    assert "[" not in done.stdout, done.stdout  # [INFO], [WARNING]


def test_readme_and_schema_tell_what_values_yaml_tells():
    done = subprocess.run([sys.executable, chart.ROOT / "helm" / "document.py", "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_versions_are_the_servers():
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == about["version"] == VERSION
    example = yaml.safe_load((chart.EXAMPLES / "chart-with-sidecar" / "Chart.yaml").read_text())
    assert example["dependencies"][0]["version"] == VERSION
    for path in chart.EXAMPLES.glob("**/*.yaml"):
        for tag in re.findall(r"image: millrace:(\S+)", path.read_text()):
            assert tag == VERSION, path


def test_a_package_of_it_renders_the_same(tmp_path):
    assert chart.helm("package", chart.CHART, "--destination", tmp_path).returncode == 0
    done = chart.template(*MINIMAL, chart=tmp_path / f"millrace-{VERSION}.tgz")
    assert chart.objects(done.stdout) == chart.rendered("minimal")


# ---- Values that aren't taken -------------------------------------------------------------------


def differences(values, schema, path=""):
    """The keys that only one of values.yaml and the schema has, and objects that take any key."""
    properties = schema.get("properties")
    if properties is None or not isinstance(values, dict):
        return
    if schema.get("additionalProperties") is not False:
        yield f"{path} takes any key"
    for key in values.keys() ^ (properties.keys() - ({"global"} if not path else set())):
        yield f"{path}.{key}"
    for key in values.keys() & properties.keys():
        yield from differences(values[key], properties[key], f"{path}.{key}")


def test_the_schema_knows_every_value_and_no_other():
    # Every object of one trigger or policy is checked in the schemas of Kubernetes' objects.
    found = [each for each in differences(VALUES, SCHEMA) if not each.endswith(".tolerance")]
    assert found == []


@pytest.mark.parametrize("setting, said", [
    ("replicas=2", "additional properties 'replicas' not allowed"),
    ("server.logFromat=text", "additional properties 'logFromat' not allowed"),
    ("autoscaling.keda.fallback.repliacs=2", "additional properties 'repliacs' not allowed"),
    ("replicaCount=many", "got string, want integer"),
    ("mode=statefulset", "value must be one of"),
    ("server.extraArgs={pin}", "does not match pattern"),
    ("ports.grpc=80000", "maximum"),
    ("resources.limits.memory=4GB", "does not match pattern"),
])
def test_unknown_and_wrong_values_are_refused(setting, said):
    assert said in chart.refusal(*MINIMAL, "--set", setting)


@pytest.mark.parametrize("settings, said", [
    (["models.existingClaim="], "models come from one place"),
    (["models.image.reference=models:1"], "there are 2"),
    (["models.load={a}"], "models.load is for models.control explicit"),
    (["tls.enabled=true"], "tls.enabled takes tls.existingSecret"),
    (["tls.clientCaSecret=ca"], "takes tls.enabled"),
    (["tls.enabled=true", "tls.existingSecret=a", "tls.allowedSans={b}"],
     "takes tls.clientCaSecret"),
    (["mode=sidecar"], "mode sidecar takes sidecar.containers"),
    (["mode=sidecar", "sidecar.containers[0].name=a", "sidecar.containers[0].image=b",
      "tls.enabled=true", "tls.existingSecret=c"], "never leaves the pod"),
    (["mode=sidecar", "sidecar.containers[0].name=a", "sidecar.containers[0].image=b",
      "monitoring.serviceMonitor.enabled=true"], "use monitoring.podMonitor"),
    (["server.maxQueueBytes=3000000000"], "less than half of resources.limits.memory"),
    (["server.grpcMemoryBytes=1100000000"], "less than half of resources.limits.memory"),
    (["resources.limits.memory=1500m"], "is no amount of memory"),
    (["server.tuneAtStartSeconds=600"], "loading and tuning may take 1200 seconds"),
    (["ports.health=8001"], "must differ"),
    (["autoscaling.hpa.enabled=true", "autoscaling.keda.enabled=true"], "would scale the same"),
    (["autoscaling.minReplicas=5"], "autoscaling.minReplicas is 5"),
    (["autoscaling.keda.enabled=true"], "takes autoscaling.keda.serverAddress"),
    (["monitoring.podMonitor.enabled=true", "monitoring.serviceMonitor.enabled=true"],
     "measured twice"),
])
def test_values_that_contradict_each_other_are_refused(settings, said):
    arguments = [each for setting in settings for each in ("--set", setting)]
    assert said in chart.refusal(*MINIMAL, *arguments)


@pytest.mark.parametrize("settings, said", [
    (["monitoring.podMonitor.enabled=true"], "monitoring.coreos.com/v1"),
    (["monitoring.serviceMonitor.enabled=true"], "monitoring.coreos.com/v1"),
    (["monitoring.prometheusRule.enabled=true"], "monitoring.coreos.com/v1"),
    (["autoscaling.keda.enabled=true", "autoscaling.keda.serverAddress=http://a"],
     "keda.sh/v1alpha1"),
])
def test_what_the_cluster_doesnt_know_is_refused(settings, said):
    arguments = [each for setting in settings for each in ("--set", setting)]
    assert f"the cluster doesn't know {said}" in chart.refusal(*MINIMAL, *arguments, apis=())


def test_models_as_an_image_are_refused_where_they_cant_be_mounted():
    image = ("--set", "models.existingClaim=,models.image.reference=models:1")
    folder = ("--set", "models.subPath=repository")
    assert "takes Kubernetes 1.31" in chart.refusal(*MINIMAL, *image, version="1.30")
    assert chart.template(*MINIMAL, *image, version="1.31").returncode == 0
    assert "takes Kubernetes 1.33" in chart.refusal(*MINIMAL, *image, *folder, version="1.32")
    assert chart.template(*MINIMAL, *image, *folder, version="1.33").returncode == 0


def test_an_older_kubernetes_is_refused():
    assert "incompatible with Kubernetes v1.28.0" in chart.refusal(*MINIMAL, version="1.28")


# ---- The end of a pod ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [chart.KUBERNETES[0], chart.LATEST])
@pytest.mark.parametrize("values", [each for each in DEPLOYED if each != "cpu"])
def test_the_drain_fits_into_the_grace_period(values, version):
    found = chart.rendered(values, version=version)
    server, grace = chart.server(found), chart.pod_spec(found)["terminationGracePeriodSeconds"]
    pre_stop = server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    delay = chart.seconds(chart.flag(server, "--drain-delay"))
    timeout = chart.seconds(chart.flag(server, "--drain-timeout"))
    wanted = VALUES["drain"] | yaml.safe_load(chart.CI[values].read_text()).get("drain", {})
    assert pre_stop + delay == wanted["preStopSeconds"] + wanted["delaySeconds"] > 0
    assert pre_stop == (0 if version == "1.29" else wanted["preStopSeconds"])
    assert timeout == wanted["timeoutSeconds"]
    assert grace == pre_stop + delay + timeout + wanted["slackSeconds"]
    # After the timeout, calls are cancelled, connections closed and processes ended.
    assert grace - (pre_stop + delay + timeout) >= 5


def test_a_sidecar_drains_after_its_containers_have_ended():
    found = chart.rendered("sidecar")
    server = chart.server(found)
    assert "lifecycle" not in server
    assert chart.flag(server, "--drain-delay") == "0s"
    stop = yaml.safe_load(chart.CI["sidecar"].read_text())["sidecar"]["containersStopSeconds"]
    assert chart.pod_spec(found)["terminationGracePeriodSeconds"] >= (
        stop + chart.seconds(chart.flag(server, "--drain-timeout")) + 5)


def test_examples_leave_time_for_their_drain(tmp_path):
    job = chart.only(chart.objects((chart.EXAMPLES / "sidecar-job.yaml").read_text()), "Job")
    other = chart.rendered_example_chart(tmp_path)
    for pod in (job["spec"]["template"]["spec"], chart.pod_spec(other)):
        server = chart.server_of(pod)
        assert chart.flag(server, "--drain-delay") == "0s"
        timeout = chart.seconds(chart.flag(server, "--drain-timeout"))
        assert pod["terminationGracePeriodSeconds"] >= 20 + timeout + 10
    runtime, service = (
        chart.only(chart.objects((chart.EXAMPLES / "kserve" / name).read_text()), kind)
        for name, kind in (("cluster-serving-runtime.yaml", "ClusterServingRuntime"),
                           ("inference-service.yaml", "InferenceService")))
    container = runtime["spec"]["containers"][0]
    needed = sum(chart.seconds(chart.flag(container, name))
                 for name in ("--drain-delay", "--drain-timeout"))
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] >= needed + 5


# ---- Start and health ---------------------------------------------------------------------------


@each_values
def test_probes_ask_where_health_is_told_without_tls(values):
    found = chart.rendered(values)
    server = chart.server(found)
    restricted = values in ("tls", "sidecar")
    port = chart.port_of(chart.flag(server, "--health-listen" if restricted else "--grpc-listen"))
    assert ("--health-listen" in chart.flags(server)) == restricted
    for probe, service in (("startupProbe", "readiness"), ("livenessProbe", "liveness"),
                           ("readinessProbe", "readiness")):
        assert server[probe]["grpc"] == {"port": port, "service": service}
        assert server[probe]["timeoutSeconds"] > 1  # The default is too short for a busy pod.


def test_health_services_are_those_that_the_server_has():
    source = (chart.ROOT / "server" / "rpc" / "health_service.cc").read_text()
    for service in ("liveness", "readiness"):
        assert f'"{service}"' in source


@each_values
def test_a_pod_has_time_to_load_its_models(values):
    found = chart.rendered(values)
    server = chart.server(found)
    budget = server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"]
    loading = chart.seconds(chart.flag(server, "--load-timeout"))
    tuning = chart.seconds(chart.flags(server).get("--tune-at-start", ["0s"])[0])
    assert budget >= loading + tuning
    assert chart.only(found, "Deployment")["spec"]["progressDeadlineSeconds"] > budget


def test_budget_is_rounded_up_to_whole_periods():
    found = chart.rendered("minimal", "--set", "probes.startup.periodSeconds=7")
    assert chart.server(found)["startupProbe"]["failureThreshold"] == 129  # 900 / 7


# ---- Ports and names ----------------------------------------------------------------------------


@each_values
def test_ports_are_those_that_the_server_listens_on(values):
    server = chart.server(chart.rendered(values))
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    listening = {name: chart.flags(server).get(flag, [""])[0] for name, flag in (
        ("grpc", "--grpc-listen"), ("http-metrics", "--http-listen"),
        ("grpc-health", "--health-listen"))}
    assert ports == {name: chart.port_of(address) for name, address in listening.items()
                     if address and not address.startswith("unix:")}
    for address in listening.values():
        assert re.fullmatch(r"((0\.0\.0\.0|\[::]):\d+|unix:/run/millrace/millrace\.sock)?", address)


@each_deployment
def test_what_names_a_port_names_one_of_the_servers(values):
    found = chart.rendered(values)
    ports = {port["name"]: port["containerPort"] for port in chart.server(found)["ports"]}
    for service in chart.kinds(found, "Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] == port["name"]
            assert port["port"] == ports[port["targetPort"]]
    policy = chart.only(found, "NetworkPolicy")["spec"]
    own = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert set(own) == set(ports)
    for monitor in chart.kinds(found, "PodMonitor"):
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} == {"http-metrics"}
    annotations = chart.only(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations.get("prometheus.io/port", "8002") == str(ports["http-metrics"])


def test_other_ports_arrive_everywhere():
    found = chart.rendered("tls", "--set", "ports.grpc=9001,ports.http=9002,ports.health=9003")
    server = chart.server(found)
    assert [port["containerPort"] for port in server["ports"]] == [9001, 9002, 9003]
    assert server["livenessProbe"]["grpc"]["port"] == 9003
    assert not re.search(r"\b800[1-3]\b", yaml.safe_dump_all(found))


def test_a_load_balancer_shows_grpc_only():
    service = chart.only(chart.rendered("tls"), "Service", f"{chart.RELEASE}-millrace")
    assert service["spec"]["type"] == "LoadBalancer"
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"]


@each_deployment
def test_h2c_is_said_only_of_what_is_http2_without_tls(values):
    for service in chart.kinds(chart.rendered(values), "Service"):
        protocols = {port["name"]: port.get("appProtocol") for port in service["spec"]["ports"]}
        assert protocols["grpc"] == (None if values == "tls" else "kubernetes.io/h2c")


@each_values
def test_selectors_find_the_pods_and_nothing_else(values):
    found = chart.rendered(values)
    labels = labels_of_pods(found)
    spec = chart.only(found, "Deployment")["spec"]
    selectors = [spec["selector"]["matchLabels"]]
    selectors += [each["labelSelector"]["matchLabels"]
                  for each in spec["template"]["spec"]["topologySpreadConstraints"]]
    selectors += [each["spec"]["selector"] for each in chart.kinds(found, "Service")]
    selectors += [each["spec"]["podSelector"]["matchLabels"]
                  for each in chart.kinds(found, "NetworkPolicy")]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        selectors += [each["spec"]["selector"]["matchLabels"] for each in chart.kinds(found, kind)]
    others = [each["metadata"]["labels"] for each in chart.kinds(found, "Pod")]
    for selector in selectors:
        assert chart.matches(selector, labels)
        assert not any(chart.matches(selector, other) for other in others)
        # A selector can't change while a release lives.
        assert not any("version" in key or "chart" in key for key in selector)


def test_a_service_monitor_finds_one_service():
    found = chart.rendered("tls")
    spec = chart.only(found, "ServiceMonitor")["spec"]
    matching = [each for each in chart.kinds(found, "Service")
                if chart.matches(spec["selector"]["matchLabels"], each["metadata"]["labels"])]
    assert len(matching) == 1
    offered = {port["name"] for port in matching[0]["spec"]["ports"]}
    assert {each["port"] for each in spec["endpoints"]} <= offered


@each_values
def test_another_release_shares_no_name_and_no_pod(values):
    found = chart.rendered(values)
    other = chart.objects(chart.helm(
        "template", "other", chart.CHART, "-f", chart.CI[values], "--set", "fullnameOverride=",
        *(flag for api in chart.APIS for flag in ("--api-versions", api))).stdout)
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects}
             for objects in (found, other)]
    assert not names[0] & names[1]
    for service in chart.kinds(found, "Service"):
        assert not chart.matches(service["spec"]["selector"], labels_of_pods(other))


def test_the_longest_names_are_still_names():
    done = chart.helm("template", "r" * 53, chart.CHART, *MINIMAL)
    found = chart.objects(done.stdout)
    assert all(len(each["metadata"]["name"]) <= 63 for each in found)
    assert len(found) == len({(each["kind"], each["metadata"]["name"]) for each in found})


@each_deployment
def test_the_test_pod_asks_where_the_server_answers(values):
    found = chart.rendered(values)
    pod = chart.only(found, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    host, port = pod["spec"]["containers"][0]["args"][2].split(":")
    service = chart.only(found, "Service", host)
    assert int(port) in {each["port"] for each in service["spec"]["ports"]}
    commands = [[*each["command"], each["args"][0]] for each in pod["spec"]["containers"]]
    expected = ["health"] if values == "tls" else ["health", "models"]
    assert commands == [["/usr/bin/millrace", each] for each in expected]
    assert {each["image"] for each in pod["spec"]["containers"]} == {
        chart.server(found)["image"]}


@pytest.mark.parametrize("values", [each for each in DEPLOYED if each != "cpu"])
def test_the_network_policy_lets_the_test_pod_in(values):
    found = chart.rendered(values)
    pod = chart.only(found, "Pod")
    port = int(pod["spec"]["containers"][0]["args"][2].split(":")[1])
    name = {each["containerPort"]: each["name"] for each in chart.server(found)["ports"]}[port]
    assert any(
        chart.matches(peer["podSelector"]["matchLabels"], pod["metadata"]["labels"])
        for rule in chart.only(found, "NetworkPolicy")["spec"]["ingress"]
        if name in [each["port"] for each in rule["ports"]]
        for peer in rule["from"] if "podSelector" in peer)


def test_the_network_policy_lets_nothing_out_but_what_is_asked_for():
    def egress(values, *arguments):
        found = chart.rendered(values, *arguments)
        policy = chart.only(found, "NetworkPolicy")["spec"]
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
        return policy["egress"]

    assert egress("minimal") == []
    assert [port["port"] for rule in egress("cpu")[:1] for port in rule["ports"]] == [53, 53]
    assert len(egress("cpu")) == 2
    assert len(egress("gpu")) == 1
    assert not chart.kinds(chart.rendered("sidecar"), "NetworkPolicy")
    without = chart.rendered("minimal", "--set", "networkPolicy.enabled=false")
    assert not chart.kinds(without, "NetworkPolicy")


# ---- Containers ---------------------------------------------------------------------------------


@each_values
def test_containers_may_do_nothing(values):
    """Kubernetes' policy `restricted`, and a file system that is read-only."""
    found = chart.rendered(values)
    pods = [chart.pod_spec(found), *(each["spec"] for each in chart.kinds(found, "Pod"))]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        for container in chart.all_containers(pod):
            if container["image"].startswith("millrace:"):
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["privileged"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for account in chart.kinds(found, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@each_values
def test_volumes_are_there_and_used(values):
    pod = chart.pod_spec(chart.rendered(values))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = [mount for container in chart.all_containers(pod)
              for mount in container.get("volumeMounts", [])]
    assert {mount["name"] for mount in mounts} == set(volumes)
    # Batches are in memory that needs no file system.
    assert not any(mount["mountPath"].startswith("/dev/shm") for mount in mounts)
    # What is written to takes no more than it is given.
    for mount in chart.server_of(pod)["volumeMounts"]:
        volume = volumes[mount["name"]]
        if not mount.get("readOnly"):
            assert "sizeLimit" in volume["emptyDir"], mount


@each_values
def test_files_that_flags_name_are_mounted(values):
    server = chart.server(chart.rendered(values))
    folders = [mount["mountPath"] for mount in server["volumeMounts"]]
    for name, given in chart.flags(server).items():
        for value in given:
            path = value.removeprefix("unix:")
            if path.startswith("/"):
                assert any(path == each or path.startswith(each + "/") for each in folders), name


@each_values
def test_secrets_bring_the_files_that_flags_name(values):
    found = chart.rendered(values)
    server, pod = chart.server(found), chart.pod_spec(found)
    brought = {f"{mount['mountPath']}/{item['path']}"
               for mount in server["volumeMounts"] for volume in pod["volumes"]
               if volume["name"] == mount["name"] and "secret" in volume
               for item in volume["secret"]["items"]}
    named = {value for given in chart.flags(server).values() for value in given
             if value.startswith("/etc/")}
    assert named == brought
    assert bool(named) == (values == "tls")


@pytest.mark.parametrize("values", ["minimal", "cpu", "gpu", "sidecar"])
def test_pods_can_have_cores_of_their_own(values):
    """Quality of service Guaranteed, with whole CPUs."""
    for container in chart.pod_spec(chart.rendered(values))["containers"]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert set(resources["limits"]) >= {"cpu", "memory"}
        assert float(resources["limits"]["cpu"]).is_integer()


@each_values
def test_what_waits_leaves_room_for_models(values):
    server = chart.server(chart.rendered(values))
    limit = chart.quantity(server["resources"]["limits"]["memory"])
    waiting = int(chart.flag(server, "--max-queue-bytes"))
    connections = int(chart.flags(server).get("--grpc-memory-bytes", ["0"])[0])
    assert waiting + connections < limit / 2
    if values == "minimal":
        assert waiting == limit / 4


@pytest.mark.parametrize("memory, expected", [
    ("2Gi", 2**29), ("1.5Gi", 3 * 2**27), ("4G", 10**9), ("4294967296", 2**30)])
def test_amounts_of_memory_are_read(memory, expected):
    found = chart.rendered("minimal", "--set-string", f"resources.limits.memory={memory}",
                           "--set-string", f"resources.requests.memory={memory}")
    assert int(chart.flag(chart.server(found), "--max-queue-bytes")) == expected


def test_without_a_limit_the_server_decides():
    found = chart.rendered("minimal", "--set", "resources.limits=null")
    server = chart.server(found)
    assert "--max-queue-bytes" not in chart.flags(server)
    assert server["resources"] == {"requests": VALUES["resources"]["requests"]}


def test_gpus_are_asked_for():
    found = chart.rendered("gpu")
    pod, server = chart.pod_spec(found), chart.server(found)
    for side in ("requests", "limits"):
        assert server["resources"][side]["nvidia.com/gpu"] == 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (
        pod["tolerations"])
    assert len(pod["tolerations"]) == 2
    assert server["image"] == f"millrace:{VERSION}-cuda"
    update = chart.only(found, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxUnavailable": 1, "maxSurge": 0}  # Nobody has a spare GPU.
    spare = chart.rendered("gpu", "--set", "gpu.surge=true")
    update = chart.only(spare, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("settings, image", [
    ([], f"millrace:{VERSION}"),
    (["image.tag=7"], "millrace:7"),
    (["image.tag=7", "gpu.enabled=true"], "millrace:7"),
    ([f"image.digest=sha256:{'0' * 64}"], f"millrace@sha256:{'0' * 64}"),
])
def test_images(settings, image):
    arguments = [each for setting in settings for each in ("--set-string" if "tag" in setting
                                                           else "--set", setting)]
    assert chart.server(chart.rendered("minimal", *arguments))["image"] == image


# ---- Sidecars -----------------------------------------------------------------------------------


def test_a_sidecar_is_a_native_one():
    pod = chart.pod_spec(chart.rendered("sidecar"))
    assert [each["name"] for each in pod["initContainers"]] == ["millrace"]
    assert pod["initContainers"][0]["restartPolicy"] == "Always"
    assert "startupProbe" in pod["initContainers"][0]  # The others wait for it.


def test_containers_reach_the_sidecars_socket(tmp_path):
    for found in (chart.rendered("sidecar"), chart.rendered_example_chart(tmp_path)):
        pod = chart.pod_spec(found)
        server = chart.server_of(pod)
        url = chart.flag(server, "--grpc-listen")
        volume = next(each for each in pod["volumes"] if each["name"] == "millrace-socket")
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}
        assert pod["securityContext"]["fsGroup"] == 65532
        for container in [server, *pod["containers"]]:
            folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert url.startswith(f"unix:{folders['millrace-socket']}/")
        for container in pod["containers"]:
            assert {"name": "MILLRACE_URL", "value": url} in container["env"]


def test_containers_keep_what_they_had():
    container = chart.pod_spec(chart.rendered("sidecar"))["containers"][0]
    assert {"name": "LANG", "value": "C.UTF-8"} in container["env"]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["work", "millrace-socket"]


def test_a_sidecar_has_no_service():
    found = chart.rendered("sidecar")
    assert not chart.kinds(found, "Service") and not chart.kinds(found, "Pod")


def test_the_job_maps_over_the_sidecars_socket():
    job = chart.only(chart.objects((chart.EXAMPLES / "sidecar-job.yaml").read_text()), "Job")
    pod = job["spec"]["template"]["spec"]
    server = chart.server_of(pod)
    assert server["restartPolicy"] == "Always"
    assert f"--url={chart.flag(server, '--grpc-listen')}" in pod["containers"][0]["args"]
    ports = {each["containerPort"] for each in server["ports"]}
    assert server["startupProbe"]["grpc"]["port"] in ports
    assert ports == {chart.port_of(chart.flag(server, name))
                     for name in ("--http-listen", "--health-listen")}


def test_a_library_installs_nothing():
    done = chart.template(*MINIMAL, "--set", "mode=library")
    assert done.returncode == 0 and chart.objects(done.stdout) == []


def test_the_sidecar_is_refused_without_mode_library(tmp_path):
    with pytest.raises(AssertionError, match="take mode library"):
        chart.rendered_example_chart(tmp_path, "--set", "millrace.mode=deployment")


# ---- KServe -------------------------------------------------------------------------------------


def test_the_runtime_is_reached_on_its_first_port():
    runtime = chart.only(chart.objects(
        (chart.EXAMPLES / "kserve" / "cluster-serving-runtime.yaml").read_text()),
        "ClusterServingRuntime")
    container = runtime["spec"]["containers"][0]
    port = container["ports"][0]
    assert port["name"] == "h2c"
    assert port["containerPort"] == chart.port_of(chart.flag(container, "--grpc-listen"))
    assert chart.flag(container, "--model-repository") == "/mnt/models"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["grpc"]["port"] == port["containerPort"]
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(
        chart.port_of(chart.flag(container, "--http-listen")))
    assert runtime["spec"]["protocolVersions"] == ["grpc-v2"]


def test_the_service_asks_for_the_runtime():
    runtime, service = (
        chart.objects((chart.EXAMPLES / "kserve" / name).read_text())[0]
        for name in ("cluster-serving-runtime.yaml", "inference-service.yaml"))
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"] in [
        {key: each[key] for key in ("name", "version")}
        for each in runtime["spec"]["supportedModelFormats"]]


# ---- Autoscaling and monitoring -----------------------------------------------------------------


@each_values
def test_one_of_deployment_and_autoscaler_says_how_many(values):
    found = chart.rendered(values)
    deployment = chart.only(found, "Deployment")
    scalers = [*chart.kinds(found, "HorizontalPodAutoscaler"), *chart.kinds(found, "ScaledObject")]
    assert ("replicas" in deployment["spec"]) == (not scalers)
    assert len(scalers) == (values in ("cpu", "keda"))
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert target == {"apiVersion": "apps/v1", "kind": "Deployment",
                          "name": deployment["metadata"]["name"]}


def test_the_hpa_grows_fast_and_shrinks_slowly():
    spec = chart.only(chart.rendered("cpu"), "HorizontalPodAutoscaler")["spec"]
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert spec["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "0.8"}


def test_the_adapter_offers_the_metric_that_the_hpa_asks_for():
    found = chart.rendered("cpu")
    config = chart.only(found, "ConfigMap", f"{chart.RELEASE}-millrace-adapter")
    rule, = yaml.safe_load(config["data"]["config.yaml"])["rules"]
    metric = chart.only(found, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]
    assert rule["name"]["as"] == metric["name"]
    assert rule["seriesQuery"].startswith(metric["name"] + "{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert rule["metricsQuery"].startswith("sum by (<<.GroupBy>>)")


def test_models_are_added_up_or_the_largest_counts():
    for combine in ("sum", "max"):
        settings = ("--set", f"autoscaling.combine={combine}")
        config = chart.only(chart.rendered("cpu", *settings), "ConfigMap",
                            f"{chart.RELEASE}-millrace-adapter")
        rule, = yaml.safe_load(config["data"]["config.yaml"])["rules"]
        assert rule["metricsQuery"].startswith(f"{combine} by (<<.GroupBy>>)")
        trigger, = chart.only(chart.rendered("keda", *settings),
                              "ScaledObject")["spec"]["triggers"]
        assert trigger["metadata"]["query"].startswith(f"sum({combine} by (pod) (")


def test_keda_takes_no_answer_for_no_demand():
    scaled = chart.only(chart.rendered("keda"), "ScaledObject")["spec"]
    trigger, = scaled["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metricType"] == "AverageValue"  # Without it there is no fallback.
    assert scaled["fallback"] == {"failureThreshold": 3, "replicas": 6,
                                  "behavior": "currentReplicasIfHigher"}
    assert scaled["minReplicaCount"] >= 1


def test_keda_asks_for_the_pods_of_this_deployment_only():
    trigger, = chart.only(chart.rendered("keda"), "ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert f'namespace="{chart.NAMESPACE}"' in query
    pods = re.search(r'pod=~"([^"]+)"', query)[1]
    assert re.fullmatch(pods, "detector-6d4cf56db6-x2x7q")
    assert not re.fullmatch(pods, "detector-2-6d4cf56db6-x2x7q")
    assert not re.fullmatch(pods, "other-6d4cf56db6-x2x7q")


def catalogue():
    """The metrics of server/metrics/metric_names.h, with what Prometheus adds to histograms."""
    source = (chart.ROOT / "server" / "metrics" / "metric_names.h").read_text()
    names = set(re.findall(r'"(millrace_[a-z0-9_]+|process_[a-z0-9_]+)"', source))
    assert len(names) > 30
    return names | {name + suffix for name in names for suffix in ("_bucket", "_sum", "_count")}


# Not a metric: a resource of Kubernetes, or the name of a rule, which has a colon.
METRIC = re.compile(r"(?<![\w:./-])millrace_[a-z0-9_]+(?![\w:/-])")


@pytest.mark.parametrize("path", [
    *sorted((chart.CHART / "files").glob("**/*.*")), *sorted(chart.EXAMPLES.glob("**/*.yaml")),
    chart.CHART / "values.yaml", *sorted((chart.CHART / "templates").glob("*.*")),
    *(chart.ROOT / "docs" / f"{page}.md" for page in ("autoscaling", "kubernetes", "sidecar"))],
    ids=lambda path: str(path.relative_to(chart.ROOT)))
def test_metrics_that_are_named_exist(path):
    unknown = set(METRIC.findall(path.read_text())) - catalogue()
    assert not unknown


def test_rules_and_dashboards_arrive_as_they_are(tmp_path):
    copy = chart.copy_of_chart(tmp_path)
    rules = ('groups:\n  - name: more\n    rules:\n      - alert: Late\n'
             '        expr: millrace_queue_oldest_age_seconds > 1\n        for: 5m\n'
             '        annotations:\n          summary: "{{ $labels.model }}: {{ $value }} s"\n')
    dashboard = '{"title": "More", "panels": [{"legendFormat": "{{model}}"}]}'
    (copy / "files" / "rules").mkdir(exist_ok=True)
    (copy / "files" / "dashboards").mkdir(exist_ok=True)
    (copy / "files" / "rules" / "more.yaml").write_text(rules)
    (copy / "files" / "dashboards" / "more.json").write_text(dashboard)
    done = chart.template("-f", chart.CI["cpu"], chart=copy)
    assert done.returncode == 0, done.stderr
    found = chart.objects(done.stdout)
    files = sorted((copy / "files" / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert chart.only(found, "PrometheusRule")["spec"]["groups"] == groups
    for file in (copy / "files" / "dashboards").glob("*.json"):
        item = chart.only(found, "ConfigMap", f"{chart.RELEASE}-millrace-dashboard-{file.stem}")
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"]["grafana_folder"] == "Millrace"
        assert json.loads(item["data"][file.name]) == json.loads(file.read_text())
        assert len(item["data"][file.name]) < 1_000_000  # A ConfigMap's limit.


def test_rules_of_the_chart_are_named_once():
    groups = [group["name"] for file in (chart.CHART / "files" / "rules").glob("*.yaml")
              for group in yaml.safe_load(file.read_text())["groups"]]
    assert len(groups) == len(set(groups))


# ---- What else there is -------------------------------------------------------------------------


def test_labels_and_annotations_arrive():
    found = chart.rendered("cpu")
    for item in found:
        assert item["metadata"]["labels"]["team"] == "vision"
        assert item["metadata"]["annotations"]["owner"] == "vision"
        assert item["metadata"]["namespace"] == chart.NAMESPACE
    pod = chart.only(found, "Deployment")["spec"]["template"]["metadata"]
    assert pod["labels"]["tier"] == "inference" and pod["annotations"]["note"] == "models 3"


def test_labels_of_ones_own_change_no_selector():
    settings = ["commonLabels.app\\.kubernetes\\.io/name=x", "podLabels.tier=y",
                "commonLabels.app\\.kubernetes\\.io/component=z"]
    found = chart.rendered("minimal", *(each for setting in settings
                                        for each in ("--set", setting)))
    assert chart.matches(chart.only(found, "Deployment")["spec"]["selector"]["matchLabels"],
                         labels_of_pods(found))
    plain = chart.rendered("minimal")
    for kind in ("Deployment", "NetworkPolicy", "PodDisruptionBudget"):
        assert chart.only(found, kind)["metadata"] == chart.only(plain, kind)["metadata"]


def test_a_new_chart_alone_replaces_no_pod():
    """Labels of pods don't tell the chart's version."""
    for values in chart.CI:
        assert "helm.sh/chart" not in labels_of_pods(chart.rendered(values))


def test_extra_objects_are_templates():
    item = chart.only(chart.rendered("gpu"), "ConfigMap", f"{chart.RELEASE}-millrace-extra")
    assert item["data"] == {"release": chart.RELEASE}


def test_an_account_that_exists_is_used():
    found = chart.rendered("keda")
    assert not chart.kinds(found, "ServiceAccount")
    assert chart.pod_spec(found)["serviceAccountName"] == "millrace"


def test_a_pod_is_never_kept_from_moving():
    """With one pod, minAvailable 1 would keep its node from being drained."""
    for values in chart.CI:
        spec = chart.only(chart.rendered(values), "PodDisruptionBudget")["spec"]
        assert spec["maxUnavailable"] and "minAvailable" not in spec


def notes(*arguments):
    done = chart.helm("install", chart.RELEASE, chart.CHART, "--namespace", chart.NAMESPACE,
                      "--dry-run=client", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_notes_tell_where_it_is():
    said = notes(*MINIMAL)
    assert "vision-millrace:8001" in said and "dns:///vision-millrace-headless:8001" in said
    assert 'vision-millrace-client: "true"' in said
    assert "helm test vision --namespace serving" in said
    assert "Note:" not in said


@pytest.mark.parametrize("settings, said", [
    (["resources.limits.cpu=2500m", "resources.requests.cpu=2500m"], "Only a whole number"),
    (["resources.requests.cpu=1"], "differ from"),
    (["resources.requests.memory=1Gi"], "differ from"),
    (["resources.limits.memory=null"], "there is no resources.limits.memory"),
])
def test_notes_warn_of_resources(settings, said):
    assert said in notes(*MINIMAL, *(each for setting in settings for each in ("--set", setting)))


def test_notes_of_a_sidecar_tell_the_socket():
    said = notes("-f", chart.CI["sidecar"], "--set", "monitoring.podMonitor.enabled=false")
    assert "unix:/run/millrace/millrace.sock" in said and "helm test" not in said
