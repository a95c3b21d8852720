#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Starts an image by runc as a cluster would, asks the server in it, and ends it.

The container has the user that the image names, a root that is read-only, no capabilities, no way to
new privileges, a folder for temporary files in memory, and a network of its own with nothing but the
loopback. Run as root; `./dev image` calls it. Fails at the first thing that isn't as it should be.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

BUDGET_MB = 700
READY_WITHIN_S = 300
ENDS_WITHIN_S = 60
USER = 65532
FRAMES = 3


def specification(config, root, mounts):
    """Returns what runc is to run: the image's own command, shut in."""
    def volume(source, target):
        return {"destination": target, "source": str(source), "type": "bind",
                "options": ["rbind", "ro", "nosuid", "nodev"]}

    uid, gid = (int(part) for part in config["User"].split(":"))
    return {
        "ociVersion": "1.0.2",
        "hostname": "millrace",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": config["Entrypoint"] + (config.get("Cmd") or []),
            "env": config["Env"], "cwd": config.get("WorkingDir") or "/",
            "capabilities": {kind: [] for kind in (
                "bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "mode=1777", "size=1g"]},
            *(volume(source, target) for source, target in mounts),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }


def check(condition, what):
    if not condition:
        raise SystemExit(f"try_image: {what}")


def check_files(root):
    """Holds the image's files to the budget and to what has to be in it, and returns their size."""
    size = sum(os.lstat(os.path.join(folder, name)).st_size
               for folder, _, names in os.walk(root) for name in names) / 1e6
    check(size <= BUDGET_MB, f"the files take {size:.0f} MB, more than {BUDGET_MB}")
    shells = [name for name in ("sh", "bash", "dash", "busybox", "apt-get", "dpkg", "python3")
              if os.path.lexists(root / "usr/bin" / name)]
    check(not shells, f"the image has {', '.join(shells)}")
    documents = root / "usr/share/doc/millrace"
    for name in ("LICENSE", "NOTICE", "sbom.spdx.json", "libtorch/LICENSE"):
        check((documents / name).is_file(), f"{documents / name} is missing")
    listed = json.loads((documents / "sbom.spdx.json").read_text())["packages"]
    names = {package["name"] for package in listed}
    check({"millrace", "libtorch", "libc6", "libgrpc29", "libssl3"} <= names,
          f"the SBOM lists only {sorted(names)}")
    for name in names - {"millrace", "libtorch"}:
        check((root / f"usr/share/doc/{name}/copyright").is_file(), f"{name} has no licence here")
    return size


def check_config(config):
    check(config["User"] == f"{USER}:{USER}", f"the user is {config['User']}")
    check(config["StopSignal"] == "SIGTERM", f"the stop signal is {config.get('StopSignal')}")
    check(config["Healthcheck"]["Test"][1:] == ["/usr/bin/millrace", "health"],
          f"the health check is {config.get('Healthcheck')}")
    for name in ("title", "version", "revision", "licenses"):
        check(config["Labels"].get(f"org.opencontainers.image.{name}"), f"no label {name}")


class Container:
    """A container that runs; its output is in `log`."""

    def __init__(self, bundle):
        self.bundle = pathlib.Path(bundle)
        self.name = f"millrace-{os.getpid()}"
        self.output = self.bundle / "log"
        self.process = subprocess.Popen(
            self.runc("run", "--bundle", str(bundle), self.name),
            stdin=subprocess.DEVNULL, stdout=self.output.open("w"), stderr=subprocess.STDOUT)

    def runc(self, *arguments):
        return ["runc", "--root", str(self.bundle / "state"), *arguments]

    def log(self):
        return self.output.read_text()

    def run(self, *command):
        """Runs a program of the image in the container and returns its output."""
        done = subprocess.run(self.runc("exec", self.name, *command), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, check=False)
        check(done.returncode == 0, f"{' '.join(command)} returned {done.returncode}:\n"
                                    f"{done.stdout}{done.stderr}\nthe server's log:\n{self.log()}")
        return done.stdout

    def processes(self):
        said = subprocess.run(self.runc("ps", "--format", "json", self.name), check=True,
                              capture_output=True, text=True).stdout
        return json.loads(said)

    def main_process(self):
        said = subprocess.run(self.runc("state", self.name), check=True, capture_output=True,
                              text=True).stdout
        return json.loads(said)["pid"]

    def wait_until_ready(self, begin):
        while not re.search(r"\bready$", self.log(), re.MULTILINE):
            check(self.process.poll() is None, f"the server ended:\n{self.log()}")
            check(time.monotonic() < begin + READY_WITHIN_S, f"it isn't ready:\n{self.log()}")
            time.sleep(0.02)
        return time.monotonic() - begin

    def end(self):
        """Sends the stop signal and returns how long the server took to end."""
        begin = time.monotonic()
        subprocess.run(self.runc("kill", self.name, "TERM"), check=True)
        code = self.process.wait(ENDS_WITHIN_S)
        check(code == 0, f"the server returned {code} after SIGTERM:\n{self.log()}")
        return time.monotonic() - begin

    def remove(self):
        if self.process.poll() is None:
            subprocess.run(self.runc("kill", self.name, "KILL"), check=False)
            self.process.wait(ENDS_WITHIN_S)  # Which removes what is left of the container.


def check_confinement(pid, processes):
    """The server and its workers hold no privilege, and see no network and no root to write to."""
    for each in processes:
        status = dict(line.split(":\t", 1) for line in
                      pathlib.Path(f"/proc/{each}/status").read_text().splitlines()
                      if ":\t" in line)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            check(int(status[kind], 16) == 0, f"{status['Name']} has {kind} {status[kind]}")
        check(status["NoNewPrivs"] == "1", f"{status['Name']} may get new privileges")
        check(set(status["Uid"].split()) == {str(USER)}, f"{status['Name']} is {status['Uid']}")
    check(len(processes) >= 3, f"a server, a template and a replica, but {processes} run")
    devices = re.findall(r"^ *(\S+):", pathlib.Path(f"/proc/{pid}/net/dev").read_text(),
                         re.MULTILINE)
    check(devices == ["lo"], f"the network has {devices}")
    root = next(line.split() for line in
                pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                if line.split()[4] == "/")
    check("ro" in root[5].split(","), f"the root is mounted {root[5]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="the image's files")
    parser.add_argument("--image", type=pathlib.Path, required=True, help="what buildah says of it")
    parser.add_argument("--models", type=pathlib.Path, required=True, help="mounted if it has none")
    parser.add_argument("--video", type=pathlib.Path, required=True)
    options = parser.parse_args()
    config = json.loads(options.image.read_text())["Docker"]["config"]
    check_config(config)
    size = check_files(options.root)
    print(f"size          {size:.0f} MB of files (budget {BUDGET_MB})")

    mounts = [(options.video.resolve(), "/tmp/video.avi")]
    if not any((options.root / "models").iterdir()):
        mounts.append((options.models.resolve(), "/models"))
    bundle = pathlib.Path(tempfile.mkdtemp())
    (bundle / "config.json").write_text(json.dumps(specification(config, options.root, mounts)))
    begin = time.monotonic()
    container = Container(bundle)
    try:
        print(f"cold start    {container.wait_until_ready(begin):.1f} s until ready")
        check("the sandbox lacks" not in container.log(), container.log())
        container.run(*config["Healthcheck"]["Test"][1:])
        check("READY" in container.run("/usr/bin/millrace", "models"), "no model is ready")
        answers = [json.loads(line) for line in container.run(
            "/usr/bin/millrace", "stream", "/tmp/video.avi", "--model", "pedestrians",
            "--frames", str(FRAMES), "--output", "count", "--json").splitlines()
            if '"count"' in line]
        found = [output["data"][0] for answer in answers for output in answer["outputs"]]
        check(len(found) == FRAMES and all(found), f"the detector found {found}")
        print(f"inference     {found} pedestrians in {FRAMES} frames of a video")
        check_confinement(container.main_process(), container.processes())
        print(f"confinement   user {USER}, read-only root, no capabilities, loopback only; "
              f"{len(container.processes())} processes")
        print(f"end           {container.end():.1f} s after SIGTERM, exit code 0")
    finally:
        container.remove()
        shutil.rmtree(bundle)


if __name__ == "__main__":
    sys.exit(main())
