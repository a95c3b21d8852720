# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Packages that were compiled before, by what they were made of."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from typing import Optional


def default_folder() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "millrace" / "compiled"


def key_of(*parts: object) -> str:
    """Differs where any part does."""
    digest = hashlib.sha256()
    for part in parts:
        text = repr(part).encode()
        digest.update(b"%d:%s" % (len(text), text))
    return digest.hexdigest()


class Cache:
    """Files of at most `limit` bytes together; those unused for longest go first. What others put
    or drop meanwhile does no harm: files come whole, by a rename, and one that has gone is built."""

    def __init__(self, folder: pathlib.Path, limit: int):
        self._folder = folder
        self._limit = limit

    def take(self, key: str, to: pathlib.Path) -> bool:
        """Copies the file to `to`, where there is one."""
        with contextlib.suppress(OSError):
            shutil.copyfile(self._path(key), to)
            os.utime(self._path(key))
            return True
        return False

    def put(self, key: str, file: pathlib.Path) -> None:
        """Keeps a copy, unless it alone is beyond the limit."""
        if file.stat().st_size > self._limit:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as aside:
            pass
        try:
            shutil.copyfile(file, aside.name)
            os.rename(aside.name, self._path(key))
        except OSError:
            os.unlink(aside.name)
            raise
        self._drop_oldest()

    def _path(self, key: str) -> pathlib.Path:
        return self._folder / f"{key}.pt2"

    def _drop_oldest(self) -> None:
        files = []
        for path in self._folder.glob("*.pt2"):
            with contextlib.suppress(OSError):
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size


def parse_size(text: str) -> Optional[int]:
    """Bytes of `512M` or `4G`; None where it says nothing of the kind."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in units else (text, "")
    return int(number) * units.get(unit, 1) if number.isascii() and number.isdigit() else None
