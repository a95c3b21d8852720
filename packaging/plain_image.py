#!/usr/bin/env python3
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Takes out of an image what tells only of the run that built it, so that equal files are equal images.

    plain_image.py FOLDER

FOLDER is what `buildah push … dir:FOLDER` writes of an image in Docker's format: the manifest, and the
configuration and the layers under their digests. In the configuration buildah keeps the names of the
containers that it built in.
"""

import hashlib
import json
import pathlib
import sys


def main():
    folder = pathlib.Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text())
    file = folder / manifest["config"]["digest"].removeprefix("sha256:")
    config = json.loads(file.read_text())
    for name in ("container", "container_config", "parent"):
        config.pop(name, None)
    config["config"].pop("Hostname", None)
    for step in config["history"]:
        step.pop("comment", None)
    text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    file.unlink()
    (folder / digest).write_bytes(text)
    manifest["config"].update(digest=f"sha256:{digest}", size=len(text))
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))


if __name__ == "__main__":
    main()
