# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Repositories of models that change while a server serves them."""

import shutil

import client
import reference
from server_process import MODELS, Server
from tritonclient.grpc import service_pb2

EXPLICIT = ["--model-control", "explicit"]
WATCH = ["--model-control", "watch", "--watch-settle", "300ms"]
STEP = 100  # What each version of `release` adds more than the one before.


class Repository:
    """A model repository on disk, in which a test deploys versions as people do."""

    def __init__(self, folder):
        self.path = folder / "repository"
        self.path.mkdir()
        self._aside = folder / "aside"
        self._aside.mkdir()

    def put(self, name, version, *, model="release", source=1, config=None):
        """Deploys version `source` of a test model as `version`: aside, then by one rename. The
        config is written where there is none yet, or where one is given."""
        file = MODELS / "lifecycle" / model / str(source) / "model.pt"
        folder = self.path / name
        if not folder.exists():
            folder = self._aside / name
            (folder / str(version)).mkdir(parents=True)
            shutil.copy(file, folder / str(version))
            self.configure(name, config or config_of(model), folder)
            folder.rename(self.path / name)
            return
        if config:
            self.configure(name, config)
        whole = self._aside / "version"
        whole.mkdir()
        shutil.copy(file, whole)
        old = folder / str(version)
        if old.exists():
            old.rename(self._aside / "old")
        whole.rename(old)
        shutil.rmtree(self._aside / "old", ignore_errors=True)

    def configure(self, name, config, folder=None):
        folder = folder or self.path / name
        (folder / "config.pbtxt.new").write_text(config)
        (folder / "config.pbtxt.new").rename(folder / "config.pbtxt")


def config_of(model, replicas=1, more=""):
    spec = reference.model(model)
    tensors = "".join(f'{kind} [ {{ name: "{t.name}" data_type: TYPE_FP32 dims: [ 4 ] }} ]\n'
                      for kind, ts in (("input", spec.inputs), ("output", spec.outputs))
                      for t in ts)
    return (f"max_batch_size: 8\n{tensors}"
            f"instance_group [ {{ kind: KIND_CPU count: {replicas} }} ]\n{more}")


def start(tmp_path, repository, *flags, prefix=()):
    return Server(tmp_path, repositories=[repository.path], flags=flags, prefix=prefix)


def answer(server, number=7, name="m", version=""):
    """What a model adds to its input, and the version that the answer names."""
    response = server.stub.ModelInfer(
        client.numbered(name, number, as_model="release", version=version))
    return float(client.outputs_of(response)["OUTPUT__0"][0, 0]) - number, response.model_version


def index(server):
    """The index by model and version."""
    reply = server.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    return {(model.name, model.version): model for model in reply.models}


def state(server, name="m", version="1"):
    entry = index(server).get((name, version))
    return entry.state if entry else "GONE"


def load(server, name, **parameters):
    request = service_pb2.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    return server.operator.RepositoryModelLoad(request)


def unload(server, name):
    return server.operator.RepositoryModelUnload(
        service_pb2.RepositoryModelUnloadRequest(model_name=name))
