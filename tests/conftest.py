# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests in Python."""

import faulthandler
import os
import random

import pytest


@pytest.fixture(autouse=True)
def end_of_patience():
    """Shows where a test hangs, and ends it."""
    faulthandler.dump_traceback_later(500, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def seed():
    """A seed that a failure shows; MILLRACE_SEED=… repeats it."""
    value = int(os.environ.get("MILLRACE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"MILLRACE_SEED={value}")
    return value
