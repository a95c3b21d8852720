# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""A short run of chaos; `./dev chaos` runs longer ones."""

import run

MINUTES = 0.15


def test_nothing_is_lost_whatever_happens(tmp_path, seed):
    one = run.Run(tmp_path, 60 * MINUTES, seed)
    one.run()
    print(one.report())
    assert one.checker.violations == []
    assert one.checker.requests["plain"] > 100 and one.driver.count["kill_replica"] > 0
