#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Completes a folder with Millrace's programs to the files of an image that has nothing else.

    image_files.py --version 0.1.0 --epoch 0 /files

Runs in a Debian that has the packages that the programs need; the folder holds
usr/bin and usr/lib/millrace. It adds
  - the shared libraries that these need, and those libraries need, each at its place,
  - of the packages that they come from: the licence, and an entry below var/lib/dpkg/status.d, which
    scanners of images read,
  - users, a folder for temporary files, and those that volumes are mounted at,
  - usr/share/doc/millrace/sbom.spdx.json, an SPDX document of all of it,
and sets every file's time to the epoch, so that the same inputs make the same image.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

USER = 65532
# Mount points, which a root that is read-only can't be given later; open to the image's user.
FOLDERS = {"tmp": 0o1777, "run/millrace": 0o755, "run/millrace-admin": 0o755, "models": 0o755,
           "proc": 0o555, "sys": 0o555, "dev": 0o755, "etc": 0o755}
PASSWD = f"root:x:0:0:root:/:/sbin/nologin\nmillrace:x:{USER}:{USER}:millrace:/:/sbin/nologin\n" \
         "nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
GROUP = f"root:x:0:\nmillrace:x:{USER}:\nnogroup:x:65534:\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def is_elf(file):
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def libraries_of(files, root):
    """Returns the paths at which the loader finds what `files` need, but for what is in `root`."""
    found = set()
    for file in files:
        said = run("ldd", str(file))
        missing = re.findall(r"(\S+) => not found", said)
        # The driver brings its own library into the container.
        if set(missing) - {"libcuda.so.1"}:
            raise SystemExit(f"{file} needs {', '.join(missing)}, which no package here has")
        found |= {path for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)
                  if not path.startswith(f"{root}/")}
    return sorted(found)


def place_of(path):
    """Returns where a path belongs that may name /lib, a link to /usr/lib in a merged system."""
    folder = os.path.realpath(os.path.dirname(path))
    return os.path.join(folder, os.path.basename(path)).lstrip("/")


def owner_of(path):
    real = os.path.realpath(path)
    for name in (real, real.removeprefix("/usr"), path):
        found = subprocess.run(["dpkg-query", "--search", name], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split(": ")[0].split(",")[0]
    raise SystemExit(f"no package owns {path}")


def package_fields(name):
    names = ("Package", "Version", "Architecture", "Maintainer", "source:Package",
             "source:Version")
    text = run("dpkg-query", "--show", "--showformat",
               "\x1f".join(f"${{{field}}}" for field in names), name)
    return dict(zip(names, text.split("\x1f")))


def debian_package(fields):
    """Returns the package as SPDX has it."""
    name, version = fields["Package"], fields["Version"]
    return {
        "SPDXID": f"SPDXRef-deb-{re.sub(r'[^A-Za-z0-9.-]', '-', name)}",
        "name": name,
        "versionInfo": version,
        "supplier": f"Organization: {re.sub(r' *<.*', '', fields['Maintainer'])}",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "sourceInfo": f"{fields['source:Package']} {fields['source:Version']}",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "licenseComments": f"usr/share/doc/{name}/copyright",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
                                f"?arch={fields['Architecture']}&distro=debian-12"}],
    }


def own_package(identifier, name, version, license_name, supplier, locator=None):
    package = {
        "SPDXID": identifier, "name": name, "versionInfo": version,
        "supplier": f"Organization: {supplier}", "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False, "licenseConcluded": license_name,
        "licenseDeclared": license_name, "copyrightText": "NOASSERTION",
    }
    if locator:
        package["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER",
                                    "referenceType": "purl", "referenceLocator": locator}]
    return package


def sbom(packages, version, torch_version, epoch):
    """Returns the SPDX document; its namespace follows from what it says."""
    torch = own_package("SPDXRef-libtorch", "libtorch", torch_version, "BSD-3-Clause",
                        "PyTorch Foundation", f"pkg:pypi/torch@{torch_version.split('+')[0]}")
    torch["licenseComments"] = "usr/share/doc/millrace/libtorch has the licences of its parts"
    ours = own_package("SPDXRef-millrace", "millrace", version, "Apache-2.0",
                       "The Millrace Authors")
    listed = [ours, torch, *(debian_package(fields) for fields in packages)]
    content = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"millrace-{version}",
        "documentNamespace": f"https://millrace.invalid/spdx/{version}/{content}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
                       .strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: millrace-image_files.py"]},
        "packages": listed,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
             "relatedSpdxElement": "SPDXRef-millrace"},
            *({"spdxElementId": "SPDXRef-millrace", "relationshipType": "DEPENDS_ON",
               "relatedSpdxElement": package["SPDXID"]} for package in listed[1:])],
    }


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--version", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("files", type=pathlib.Path)
    options = parser.parse_args()
    root = options.files.resolve()
    programs = [file for file in sorted(root.rglob("*")) if is_elf(file)]
    if not programs:
        raise SystemExit(f"{root} holds no programs")

    libraries = libraries_of(programs, root)
    # Programs name their loader by this path, and the system's folders by these.
    for name in ("bin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    owners = set()
    for path in libraries:
        copy(path, root / place_of(path))
        owners.add(owner_of(path))

    packages = sorted((package_fields(name) for name in owners), key=lambda each: each["Package"])
    for fields in packages:
        name = fields["Package"]
        copy(f"/usr/share/doc/{name}/copyright", root / f"usr/share/doc/{name}/copyright")
        write(root / f"var/lib/dpkg/status.d/{name}", run("dpkg-query", "--status", name))
    common = pathlib.Path("/usr/share/common-licenses")
    for license_file in sorted(common.iterdir()):  # Those that the copyright files name.
        copy(license_file, root / str(license_file).lstrip("/"))
    copy("/etc/os-release", root / "etc/os-release")

    for name, mode in FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name in ("run/millrace", "run/millrace-admin"):
        os.chown(root / name, USER, USER)
    write(root / "etc/passwd", PASSWD)
    write(root / "etc/group", GROUP)
    write(root / "etc/nsswitch.conf", NSSWITCH)

    said = run("ldd", str(root / "usr/bin/millrace-worker"))
    if f"{root}/usr/bin/../lib/millrace/libtorch_cpu.so" not in said:
        raise SystemExit(f"the worker doesn't find its libtorch:\n{said}")
    said = run(str(root / "usr/bin/millrace-worker"), "--version")
    torch_version = re.search(r"libtorch (\S+)\)", said)[1]
    version = options.version or re.search(r"millrace-worker (\S+)", said)[1]
    write(root / "usr/share/doc/millrace/sbom.spdx.json",
          json.dumps(sbom(packages, version, torch_version, options.epoch), indent=1) + "\n")

    for file in [*sorted(root.rglob("*"), reverse=True), root]:
        if not file.is_symlink() and not file.stat().st_mode & stat.S_IROTH:
            file.chmod(file.stat().st_mode | 0o444)
        os.utime(file, (options.epoch, options.epoch), follow_symlinks=False)


if __name__ == "__main__":
    main()
