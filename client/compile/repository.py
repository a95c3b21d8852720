# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A model's folder in a model repository: its config.pbtxt as far as it matters here, and its next
version, which comes whole to a server that watches."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from typing import List, Optional, Tuple

from .tensors import Signature, UsageError


def without_comments(config: str) -> str:
    return re.sub(r"^([^\"#\n]*(?:\"[^\"\n]*\"[^\"#\n]*)*)#.*$", r"\1", config, flags=re.MULTILINE)


class ModelFolder:
    """`path` is models/NAME; it need not be there yet."""

    def __init__(self, path: pathlib.Path):
        self.path = pathlib.Path(os.path.abspath(path))
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", self.path.name):
            raise UsageError(f"--into {path}: '{self.path.name}' is no name of a model; expected "
                             "letters, digits, '_', '-' and '.', the first of them a letter, a "
                             "digit or '_'")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--into {path} is no folder; name the model's folder in a repository")
        with contextlib.suppress(FileNotFoundError):
            self._config = self._config_file.read_text()
            return
        self._config = None

    @property
    def _config_file(self) -> pathlib.Path:
        return self.path / "config.pbtxt"

    @property
    def has_config(self) -> bool:
        return self._config is not None

    def max_batch_size(self) -> Optional[int]:
        """What config.pbtxt says; None where there is none."""
        if self._config is None:
            return None
        found = re.search(r"(?<![\w.])max_batch_size\s*:\s*(\d+)", without_comments(self._config))
        return int(found[1]) if found else 0

    def check(self, signature: Signature) -> None:
        """Raises where config.pbtxt keeps a package of this signature from being served."""
        if self._config is None:
            return
        for name, value in re.findall(
                r'(?<![\w.])(platform|backend|default_model_filename)\s*:\s*"([^"]*)"',
                without_comments(self._config)):
            if value not in ("torch_aoti", "pytorch", "model.pt2"):
                raise UsageError(f"{self._config_file} says {name}: \"{value}\", which a package "
                                 "isn't; remove it, and each version is run as its file says")
        theirs, ours = self.max_batch_size(), signature.max_batch_size
        if theirs > ours or (theirs == 0) != (ours == 0):
            raise UsageError(f"{self._config_file} says max_batch_size: {theirs}, but this package "
                             f"is made for {ours}; make them equal, here by --max-batch-size")

    def notes(self, version: int) -> List[str]:
        """What may keep a new version from being served, and is for the user to change."""
        notes = []
        if self._config and re.search(r"\bspecific\b", self._config):
            notes.append(f"the version_policy of {self._config_file} names its versions: add "
                         f"{version}, where it shall be served")
        if (self.path / "SHA256SUMS").exists():
            notes.append(f"{self.path / 'SHA256SUMS'} must list {version}/model.pt2 before it is "
                         "served")
        return notes

    def next_version(self) -> int:
        names = os.listdir(self.path) if self.path.is_dir() else []
        return 1 + max((int(name) for name in names if re.fullmatch(r"[1-9]\d*", name)), default=0)

    def add(self, package: pathlib.Path, config: str) -> Tuple[int, pathlib.Path]:
        """Adds the package as the next version, and the config where there is none. It is written
        aside, under a hidden name, and renamed when it is whole and on the disk."""
        new = not self.path.exists()
        above = self.path.parent if new else self.path
        above.mkdir(parents=True, exist_ok=True)
        aside = pathlib.Path(tempfile.mkdtemp(prefix=".compile-", dir=above))
        try:
            aside.chmod(0o755)
            version = self.next_version()
            folder = aside / str(version)
            folder.mkdir()
            _copy_to_disk(package, folder / "model.pt2")
            if not self.has_config:
                (aside / "config.pbtxt").write_text(config)
            if new:
                os.rename(aside, self.path)
            else:
                version = self._move_in(folder)
                if not self.has_config:
                    os.rename(aside / "config.pbtxt", self._config_file)
            return version, self.path / str(version) / "model.pt2"
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _move_in(self, folder: pathlib.Path) -> int:
        """Renames it to the next version; another's that came meanwhile stays as it is."""
        while True:
            version = self.next_version()
            with contextlib.suppress(OSError):
                os.rename(folder, self.path / str(version))
                return version
            if not (self.path / str(version)).exists():
                raise UsageError(f"{folder} can't be renamed to {self.path / str(version)}; is the "
                                 "folder writable?")


def _copy_to_disk(source: pathlib.Path, to: pathlib.Path) -> None:
    shutil.copyfile(source, to)
    with open(to, "rb+") as file:
        os.fsync(file.fileno())
