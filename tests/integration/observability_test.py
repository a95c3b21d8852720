# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What a server under load shows: metrics that promtool accepts, demand that an autoscaler can use,
streams by their names, traces and the access log."""

import collections
import json
import os
import pathlib
import re
import subprocess
import threading
import time

import client
import numpy as np
import pytest
from server_process import ROOT, Entry, Server, eventually

PROMTOOL = os.environ.get("MILLRACE_PROMTOOL", ROOT / ".cache" / "tools" / "promtool")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def inputs(rows=1):
    return {"INPUT": np.zeros((rows, 4), np.float32)}
