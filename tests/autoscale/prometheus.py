# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus that scrapes the servers and evaluates the chart's recording rules, in a time
that runs faster."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("MILLRACE_PROMETHEUS", ROOT / ".cache/tools/prometheus"))
RULES = ROOT / "helm/millrace/files/rules/recording.yaml"
SECONDS = {"s": 1, "m": 60, "h": 3600}


def faster(text, factor):
    """The rules with every duration (a window, an interval) divided; names stay."""
    def divided(found):
        milliseconds = int(found[2]) * SECONDS[found[3]] * 1000 / factor
        return f"{found[1]}{milliseconds:.0f}ms"
    return re.sub(r"(\[|interval: )(\d+)([smh])\b", divided, text)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Prometheus:
    """Runs until stop(). It scrapes what set_targets() said last."""

    def __init__(self, folder, factor):
        folder.mkdir()
        self._targets = folder / "targets.json"
        self.set_targets([])
        (folder / "rules.yaml").write_text(faster(RULES.read_text(), factor))
        interval = f"{15000 / factor:.0f}ms"
        (folder / "prometheus.yaml").write_text(f"""\
global: {{ scrape_interval: {interval}, scrape_timeout: {interval} }}
rule_files: [ "{folder}/rules.yaml" ]
scrape_configs:
  - job_name: millrace
    file_sd_configs: [ {{ files: [ "{self._targets}" ] }} ]
""")
        self.address = f"127.0.0.1:{free_port()}"
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(PROGRAM),
                 f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address={self.address}", "--log.level=warn",
                 "--query.lookback-delta=" + f"{300 / factor:.0f}s"],
                stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not self._is_ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Prometheus did not start: " + (folder / "log").read_text())
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise

    def _is_ready(self):
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=10):
                return True
        return False

    def set_targets(self, addresses):
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": sorted(addresses)}]))
        new.replace(self._targets)

    def query(self, expression):
        """The values of an instant query by the label `instance` ("" where there is none); those
        that aren't numbers (no request, no quantile) are left out."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode(
            {"query": expression})
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        values = {one["metric"].get("instance", ""): float(one["value"][1]) for one in found}
        return {name: value for name, value in values.items() if value == value}

    def stop(self):
        self._process.terminate()
        self._process.wait(60)
