# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The chart's rules in a faster time."""

import re

from prometheus import RULES, faster


def test_windows_and_intervals_are_divided_and_names_stay():
    assert faster("interval: 15s", 10) == "interval: 1500ms"
    assert faster("rate(x[1m]) / rate(y[5m])", 10) == "rate(x[6000ms]) / rate(y[30000ms])"
    assert faster("record: model:errors:ratio_rate6h", 10) == "record: model:errors:ratio_rate6h"


def test_no_duration_of_the_charts_rules_is_left_as_it_was():
    before, after = RULES.read_text(), faster(RULES.read_text(), 10)
    windows = re.findall(r"\[\d+[smh]\]", before)
    assert len(windows) > 10 and len(re.findall(r"\[\d+ms\]", after)) == len(windows)
    assert not re.search(r"\[\d+[smh]\]|interval: \d+[smh]\b", after)
    assert re.findall(r"record: \S+", before) == re.findall(r"record: \S+", after)
