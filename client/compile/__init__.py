# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles PyTorch models into AOTInductor packages that millrace-server serves: `millrace compile`.

The command line starts it as `python -m millrace_compile`, under which name the build links this
folder. __main__.py is the whole run; what can be decided without torch (tensors, variants, choice,
cache, repository, report) imports none, so it is tested without, and a Python that lacks it is told.

Nothing is compiled or run in this process but the original: builder.py compiles a variant in a
process of its own, which has an end, and worker.py runs a package in another, which may crash.
"""
