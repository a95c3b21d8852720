# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The chart helm/millrace, rendered by the real helm, and how its objects are looked through."""

import functools
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "millrace"
EXAMPLES = ROOT / "helm" / "examples"
CI = {path.name.removesuffix("-values.yaml"): path
      for path in sorted((CHART / "ci").glob("*-values.yaml"))}
KUBERNETES = [f"1.{minor}" for minor in range(29, 35)]
LATEST = KUBERNETES[-1]
APIS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")
RELEASE, NAMESPACE = "vision", "serving"

_brought = ROOT / ".cache" / "tools" / "helm"  # By `./dev setup`.
HELM = str(_brought) if _brought.exists() else shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="there is no helm in .cache/tools or PATH")


def helm(*arguments):
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, check=False)


def template(*arguments, chart=CHART, version=LATEST, apis=APIS):
    """The process that renders a chart; `arguments` are helm's, such as -f or --set."""
    known = [flag for api in apis for flag in ("--api-versions", api)]
    return helm("template", RELEASE, chart, "--namespace", NAMESPACE, "--kube-version",
                f"{version}.0", *known, *arguments)


def objects(text):
    return [each for each in yaml.safe_load_all(text) if each]


@functools.cache
def rendered(values, *arguments, version=LATEST, chart=CHART):
    """The objects of the chart with the values of ci/, by the name of the file's beginning."""
    done = template("-f", CI[values], *arguments, version=version, chart=chart)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def refusal(*arguments, **others):
    """What helm says where it refuses the values."""
    done = template(*arguments, **others)
    assert done.returncode != 0, "was rendered"
    return done.stderr


def only(found, kind, name=None):
    """The one object of a kind."""
    named = [each for each in found
             if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(named) == 1, f"{len(named)} objects are a {kind} {name or ''}"
    return named[0]


def kinds(found, kind):
    return [each for each in found if each["kind"] == kind]


def pod_spec(found):
    return only(found, "Deployment")["spec"]["template"]["spec"]


def server(found):
    """The server's container, wherever in the pod it is."""
    return server_of(pod_spec(found))


def server_of(pod):
    named = [each for each in all_containers(pod) if each["name"] == "millrace"]
    assert len(named) == 1
    return named[0]


def all_containers(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def flags(container):
    """The flags, as {name: [values]}."""
    found = {}
    for argument in container["args"]:
        name, _, value = argument.partition("=")
        found.setdefault(name, []).append(value)
    return found


def flag(container, name):
    values = flags(container)[name]
    assert len(values) == 1, f"{name}: {values}"
    return values[0]


def seconds(text):
    assert re.fullmatch(r"\d+s", text), text
    return int(text[:-1])


def port_of(address):
    return int(address.rpartition(":")[2])


def quantity(amount):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(amount)).groups()
    return float(number) * {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10,
                            "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[unit]


def matches(selector, labels):
    return selector.items() <= labels.items()


def copy_of_chart(folder):
    return shutil.copytree(CHART, folder / "millrace")


def rendered_example_chart(folder, *arguments, **others):
    """The objects of the example chart that has ours as a dependency."""
    chart = shutil.copytree(EXAMPLES / "chart-with-sidecar", folder / "chart-with-sidecar")
    shutil.copytree(CHART, chart / "charts" / "millrace")
    done = template(*arguments, chart=chart, **others)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)
