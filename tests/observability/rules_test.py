# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the Prometheus rules and the Grafana dashboard to the metrics that the server has.

promtool is $MILLRACE_PROMTOOL, or what `./dev setup` put into .cache/tools."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FILES = ROOT / "helm" / "millrace" / "files"
RULES = sorted((FILES / "rules").glob("*.yaml"))
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
PROMTOOL = os.environ.get("MILLRACE_PROMTOOL", ROOT / ".cache" / "tools" / "promtool")

needs_promtool = pytest.mark.skipif(not os.access(PROMTOOL, os.X_OK),
                                    reason=f"{PROMTOOL} not found; set MILLRACE_PROMTOOL")


def promtool(*arguments):
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout + done.stderr


def rules():
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]]


def known_names():
    """The names that a scrape or a rule makes."""
    code = (ROOT / "server" / "metrics" / "metric_names.h").read_text()
    names = {"up"}
    for name, kind in re.findall(r'\{\s*"(\w+)",\s*MetricType::k(\w+)', code):
        suffixes = ("_bucket", "_sum", "_count") if kind == "Histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names | {rule["record"] for rule in rules() if "record" in rule}


def names_in(expression):
    """The metrics of an expression: words that are followed by a selector or stand alone."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)  # No strings,
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)       # selectors and ranges,
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", text)
    return {word for word in words if not re.search(rf"\b{word}\s*\(", text)
            and word not in ("and", "or", "unless", "bool", "e")}


def dashboard_expressions():
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    return found


@needs_promtool
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_promtool_accepts_the_rules(path):
    code, said = promtool("check", "rules", path)
    assert code == 0, said


@needs_promtool
def test_every_alert_fires_when_it_shall(tmp_path):
    for path in [*RULES, HERE / "alerts_test.yaml"]:
        shutil.copy(path, tmp_path)
    code, said = promtool("test", "rules", tmp_path / "alerts_test.yaml")
    assert code == 0, said


@needs_promtool
def test_tests_of_alerts_can_fail(tmp_path):
    (tmp_path / "recording.yaml").write_text((FILES / "rules" / "recording.yaml").read_text())
    alerts = (FILES / "rules" / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(alerts.replace("age_seconds > 2", "age_seconds > 9"))
    shutil.copy(HERE / "alerts_test.yaml", tmp_path)
    code, said = promtool("test", "rules", tmp_path / "alerts_test.yaml")
    assert code != 0 and "MillraceQueueAge" in said


def test_every_alert_and_rule_has_a_test():
    tests = (HERE / "alerts_test.yaml").read_text()
    fired = {each["alertname"] for test in yaml.safe_load(tests)["tests"]
             for each in test.get("alert_rule_test", []) if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = " ".join(rule["expr"] for rule in rules() if "alert" in rule)
    assert not [name for name in recorded if name not in tests and name not in used]


def test_alerts_say_what_to_do():
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
            assert {"summary", "description", "runbook"} <= set(rule["annotations"]), rule["alert"]
            page, _, heading = rule["annotations"]["runbook"].partition("#")
            assert f"# {heading.capitalize()}\n" in (ROOT / page).read_text(), rule["alert"]
            assert f"`{rule['alert']}`" in (ROOT / page).read_text(), rule["alert"]


def test_names_are_found_in_expressions():
    assert names_in('sum by (le, model) (rate(a_bucket{b="c"}[5m])) / d:e:f > 0 and g') == {
        "a_bucket", "d:e:f", "g"}


@pytest.mark.parametrize("expression", [rule["expr"] for rule in rules()])
def test_rules_read_metrics_that_exist(expression):
    assert names_in(expression) and not names_in(expression) - known_names()


@pytest.mark.parametrize("title, expression", dashboard_expressions())
def test_panels_read_metrics_that_exist(title, expression):
    assert names_in(expression) and not names_in(expression) - known_names(), title


@needs_promtool
def test_promtool_accepts_the_expressions_of_panels(tmp_path):
    groups = [{"name": "panels", "rules": [
        {"record": f"panel:{i}:x",
         "expr": expression.replace("$__rate_interval", "1m")}
        for i, (_, expression) in enumerate(dashboard_expressions())]}]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    code, said = promtool("check", "rules", path)
    assert code == 0, said


def test_panels_have_places_of_their_own():
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        taken = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
            taken |= cells
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", path.read_text())) - {"__rate_interval", "__all"}
        assert used <= variables
