# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the chart renders, and the examples, are objects that Kubernetes and the operators take.

Kubernetes' own objects are held to the schema of each of its versions by kubernetes-validate, where
a field that is unknown is an error, and a kind that is unknown, too. Those of operators are held to
schemas of our own, in schemas/.
"""

import functools
import json
import pathlib

import chart
import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

SCHEMAS = {path.stem: json.loads(path.read_text())
           for path in (pathlib.Path(__file__).parent / "schemas").glob("*.json")}

pytestmark = chart.needs_helm


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once():
    """kubernetes-validate reads its megabytes of definitions again for each object."""
    plain = kubernetes_validate.utils.schema_contents
    kubernetes_validate.utils.schema_contents = functools.cache(plain)
    yield
    kubernetes_validate.utils.schema_contents = plain


def check(item, version):
    """Raises where an object isn't as it should be."""
    schema = SCHEMAS.get(item["kind"].lower())
    if schema:
        jsonschema.Draft7Validator(schema).validate(item)
    else:
        assert kubernetes_validate.validate(item, version, strict=True) == version


@pytest.mark.parametrize("version", chart.KUBERNETES)
@pytest.mark.parametrize("values", chart.CI)
def test_objects_are_valid(values, version):
    if values == "cpu" and version in ("1.29", "1.30"):  # It has its models in an image.
        said = chart.refusal("-f", chart.CI[values], version=version)
        assert f"models.image.reference takes Kubernetes 1.31, this is v{version}.0" in said
        return
    found = chart.rendered(values, version=version)
    assert found
    for item in found:
        check(item, version)


@pytest.mark.parametrize("version", chart.KUBERNETES)
def test_a_chart_that_includes_the_sidecar_is_valid(tmp_path, version):
    found = chart.rendered_example_chart(tmp_path, version=version)
    assert [item["kind"] for item in found] == ["Deployment"]
    check(found[0], version)


@pytest.mark.parametrize("path", sorted(chart.EXAMPLES.glob("**/[a-z]*-*.yaml")),
                         ids=lambda path: path.name)
def test_examples_are_valid(path):
    for item in chart.objects(path.read_text()):
        check(item, chart.LATEST)
        if item["kind"] == "ClusterServingRuntime":
            spec = {key: item["spec"][key] for key in ("containers", "volumes")}
            check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"},
                   "spec": spec}, chart.LATEST)


def test_every_operators_object_is_seen():
    """Else its schema would check nothing."""
    found = {item["kind"].lower() for values in chart.CI for item in chart.rendered(values)}
    found |= {item["kind"].lower() for path in chart.EXAMPLES.glob("kserve/*.yaml")
              for item in chart.objects(path.read_text())}
    assert set(SCHEMAS) <= found


def test_what_is_wrong_is_found():
    def broken(values, kind, change):
        item = json.loads(json.dumps(chart.only(chart.rendered(values), kind)))
        change(item["spec"])
        return item

    for item in (broken("minimal", "Deployment", lambda spec: spec.update(replica=1)),
                 broken("keda", "ScaledObject", lambda spec: spec.update(minReplicas=1)),
                 broken("cpu", "PodMonitor", lambda spec: spec.pop("selector"))):
        with pytest.raises(jsonschema.ValidationError):
            check(item, chart.LATEST)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler"},
              chart.LATEST)


def test_schemas_are_schemas():
    for schema in [*SCHEMAS.values(),
                   json.loads((chart.CHART / "values.schema.json").read_text())]:
        jsonschema.Draft7Validator.check_schema(schema)


def test_files_are_one_document_each():
    for path in [*chart.CI.values(), chart.CHART / "values.yaml", chart.CHART / "Chart.yaml"]:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
