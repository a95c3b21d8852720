# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""How the driver of chaos undoes what it did."""

import run  # noqa: F401  (the path of what the driver imports)
from checker import Checker, Versions
from driver import DECK, Driver


def make_driver():
    return Driver(None, None, None, Checker(Versions()), None, None, seed=1)


def test_undoing_everything_leaves_out_what_begins_meanwhile():
    driver, done = make_driver(), []

    def look_again():
        done.append("looked")
        driver._undo_after(0.5, look_again)
    driver._undo_after(1, look_again)
    driver._undo_after(60, lambda: done.append("woken"))
    driver.undo_due(everything=True)
    assert done == ["looked", "woken"]
    driver.undo_due()
    assert done == ["looked", "woken"]


def test_every_fault_in_the_deck_is_one_of_the_drivers():
    assert all(callable(getattr(Driver, fault)) for fault in DECK)
