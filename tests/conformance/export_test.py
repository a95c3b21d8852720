# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What examples/export writes is served, and answers as the module does."""

import subprocess
import sys

import numpy
import pytest
import torch
import tritonclient.grpc as grpcclient
from server_process import ROOT, Server

EXAMPLE = ROOT / "examples" / "export"
ROWS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    ended = subprocess.run([sys.executable, str(EXAMPLE / "export.py"), "--into", str(folder)],
                           capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3
    with Server(folder, repositories=[folder]) as running:
        yield running


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_version_answers_as_the_module_does(server, version, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from classifier import Classifier
    images = numpy.random.default_rng(1).standard_normal((ROWS, 3, 32, 32), numpy.float32)
    tensor = grpcclient.InferInput("image", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    with grpcclient.InferenceServerClient(server.address) as client:
        answer = client.infer("classifier", [tensor], model_version=version, client_timeout=60)
    with torch.no_grad():
        expected = Classifier().eval()(torch.from_numpy(images))
    numpy.testing.assert_allclose(answer.as_numpy("scores"), expected["scores"], rtol=1e-4)
    numpy.testing.assert_array_equal(answer.as_numpy("best"), expected["best"])
