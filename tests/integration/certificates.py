# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""An authority of a test's own, and the certificates that it signs, made by openssl."""

import pathlib
import subprocess

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Pair:
    """A certificate and its key, as files."""

    def __init__(self, certificate, key):
        self.certificate, self.key = pathlib.Path(certificate), pathlib.Path(key)

    def texts(self):
        return self.key.read_bytes(), self.certificate.read_bytes()

    def replace(self, other):
        """Puts another pair in the place of this one, file by file."""
        for mine, its in ((self.key, other.key), (self.certificate, other.certificate)):
            new = mine.with_suffix(".new")
            new.write_bytes(its.read_bytes())
            new.rename(mine)


class Authority:
    def __init__(self, folder, name="authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.file, self._key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        openssl("req", "-x509", *CURVE, "-keyout", self._key, "-out", self.file, "-days", 30,
                "-subj", f"/CN={name}")

    def sign(self, name, serial, *names, days=20):
        """A certificate for `names`, such as DNS:localhost or URI:spiffe://site/camera."""
        names = names or ("DNS:localhost", "IP:127.0.0.1")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        openssl("req", *CURVE, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text("subjectAltName=" + ",".join(names) + "\n")
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key,
                "-set_serial", hex(serial), "-out", pair.certificate, "-days", days,
                "-extfile", extensions)
        return pair
