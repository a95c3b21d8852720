# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What the checker of chaos finds in logs, and what it lets pass."""

import pytest
from checker import Checker, Versions

GOOD = """\
1.0 1 open stream
1.1 1 send 0 plain plain 1 0
1.2 1 send 1 release plain 2 0
1.3 1 recv 0 OK 1 7.1.0x1 11
1.4 1 recv 1 OK 1 7.1.1x2 1
1.5 1 end OK -1 -
"""
UNARY = """\
1.0 2 open unary
1.1 2 send 0 poison plain 1 0
1.2 2 recv 0 OK 1 7.2.0x1 14
1.3 2 end OK -1 -
"""
RAW = """\
1.0 3 open raw
1.1 3 send 0 lonely plain 1 0
1.1 3 send 1 lonely plain 1 0
1.1 3 send 2 lonely plain 1 0
1.2 3 recv 0 OK 1 7.3.0x1 17
1.3 3 cancel 0
1.4 3 recv 1 OK 1 7.3.1x1 17
1.5 3 acked
1.6 3 idle 0.3
1.7 3 end CANCELLED -1 -
"""


def check(tmp_path, text, ended=True, draining_from=float("inf"), versions=None, frozen=()):
    checker = Checker(versions or Versions())
    checker.draining_from = draining_from
    (tmp_path / "log").write_text(text)
    checker.take(tmp_path / "log", 7, ended, frozen)
    return checker


@pytest.mark.parametrize("text", [GOOD, UNARY, RAW])
def test_good_logs_pass(tmp_path, text):
    assert check(tmp_path, text).violations == []


@pytest.mark.parametrize("log, old, new, counted, says", [
    (GOOD, "1.4 1 recv 1 OK 1 7.1.1x2 1\n", "", "lost", "1 requests have no answer"),
    (UNARY, "1.2 2 recv 0 OK 1 7.2.0x1 14\n", "", "lost", "no answer"),
    (GOOD, "1.5 1 end OK -1 -\n", "", "lost", "never ended"),
    (GOOD, "end OK", "end DEADLINE_EXCEEDED", "lost", "no answer for so long"),
    (GOOD, "end OK", "end INTERNAL", "lost", "ended with INTERNAL"),
    (GOOD, "end OK", "end CANCELLED", "lost", "cancelled by nobody"),
    (GOOD, "end OK", "end UNAVAILABLE", "lost", "connection broke"),
    (GOOD, "7.1.0x1 11", "7.2.0x1 11", "wrong", "values"),
    (GOOD, "7.1.1x2 1", "mixed-rows 1", "wrong", "values"),
    (GOOD, "7.1.0x1 11", "7.1.0x1 12", "wrong", "values"),
    (GOOD, "recv 0 OK 1 7.1.0x1 11", "recv 0 INTERNAL - - -", "wrong", "INTERNAL isn't"),
    (UNARY, "recv 0 OK 1 7.2.0x1 14", "recv 0 UNAVAILABLE - - -", "wrong", "UNAVAILABLE isn't"),
    (UNARY, "poison plain", "poison crash", "wrong", "OK isn't"),
    (GOOD, "1.5 1 end", "1.45 1 recv 1 OK 1 7.1.1x2 1\n1.5 1 end", "wrong", "second"),
    (GOOD, "1.1 1 send", "1.05 1 cancel 0\n1.1 1 send", "wrong", "after cancelling"),
    (GOOD, "recv 1 OK 1 7.1.1x2 1", "recv 1 OK 2 7.1.1x2 2", "wrong", "version"),
    (RAW, "1.6 3 idle", "1.55 3 late 5\n1.6 3 idle", "wrong", "answer came after"),
    (RAW, "1.7 3 end", "1.65 3 late 90\n1.7 3 end", "wrong", "answer came after"),
    (RAW, "idle 0.3", "busy 2", "wrong", "are in flight"),
    (RAW, "1.6 3 idle 0.3\n", "", "wrong", "nothing shows"),
    (RAW, "1.5 3 acked\n", "", "wrong", "nothing shows"),
    (RAW, "end CANCELLED", "end UNAVAILABLE", "lost", "connection broke"),
    (RAW, "end CANCELLED", "end DEADLINE_EXCEEDED", "lost", "ended with"),
    (RAW, "1.7 3 end CANCELLED -1 -\n", "", "lost", "ended with none"),
    (RAW, "1.2 3 recv 0 OK 1 7.3.0x1 17\n", "", "disordered", "answer 0 is that of request 1")])
def test_what_must_not_be_is_found(tmp_path, log, old, new, counted, says):
    assert old in log
    checker = check(tmp_path, log.replace(old, new, 1))
    assert getattr(checker, counted) > 0 and says in checker.violations[0]


def test_answers_out_of_order_are_found_unless_the_stream_wants_them_so(tmp_path):
    lines = GOOD.splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    swapped = "".join(lines)
    assert check(tmp_path, swapped).disordered == 1
    assert check(tmp_path, swapped.replace("stream", "stream unordered")).violations == []


def test_killed_clients_may_lack_answers_but_not_in_the_middle(tmp_path):
    assert check(tmp_path, "".join(GOOD.splitlines(True)[:3]), ended=False).violations == []
    middle = GOOD.replace("1.3 1 recv 0 OK 1 7.1.0x1 11\n", "").replace("1.5 1 end OK -1 -\n", "")
    assert check(tmp_path, middle, ended=False).disordered == 1


@pytest.mark.parametrize("answered, lost", [(2, 0), (3, 1), (1, 1)])
def test_drained_streams_have_as_many_answers_as_the_server_says(tmp_path, answered, lost):
    drained = GOOD.replace("end OK -1", f"end UNAVAILABLE {answered}")
    assert check(tmp_path, drained, draining_from=1.2).lost == lost


BROKEN = GOOD.replace("1.4 1 recv 1 OK 1 7.1.1x2 1\n", "").replace(
    "1.5 1 end OK", "22.5 1 end UNAVAILABLE")


@pytest.mark.parametrize("frozen, draining_from, lost", [
    ((), 99, 1), ([(1.4, 5.4)], 99, 1), ([(1.4, 21.3)], 99, 1), ([(3.0, 23.5)], 99, 1),
    ([(1.4, 22.4)], 99, 0),  # For longer than TCP waits.
    ([(18.0, 20.0)], 21, 1), ([(20.0, 22.0)], 21, 0)])  # While the drain closed the connections.
def test_connections_break_only_for_who_stood_too_long(tmp_path, frozen, draining_from, lost):
    assert check(tmp_path, BROKEN, draining_from=draining_from, frozen=frozen).lost == lost


@pytest.mark.parametrize("draining_from, wrong", [(99, 1), (3.5, 1), (3.0, 0)])
def test_drains_excuse_only_calls_that_they_found_unread(tmp_path, draining_from, wrong):
    refused = UNARY.replace("1.2 2 recv 0 OK 1 7.2.0x1 14", "3.6 2 recv 0 UNAVAILABLE - - -")
    assert check(tmp_path, refused, draining_from=draining_from).wrong == wrong


def test_failures_come_with_what_was_done_before(tmp_path):
    checker = Checker(Versions())
    checker.faults = [(0.5, "long before"), (80.0, "SIGKILL to replica 5"), (99.5, "after it")]
    checker.violation("lost", when=99.0)
    assert "SIGKILL to replica 5" in checker.violations[0]
    assert "long before" not in checker.violations[0] and "after it" not in checker.violations[0]
    for _ in range(20):
        checker.violation("lost")
    assert checker.violations_count == 21 and len(checker.violations) < 21


def test_versions_answer_only_while_they_may_serve():
    versions = Versions()
    versions.begin(2, 10.0)
    assert versions.may_answer(1, 5, 12) and versions.may_answer(2, 5, 12)
    assert not versions.may_answer(2, 5, 9)
    versions.end(2, 15.0, True)
    assert versions.may_answer(1, 14, 16) and not versions.may_answer(1, 16, 17)
    versions.begin(3, 20.0)
    versions.end(3, 21.0, False)
    assert not versions.may_answer(3, 20.5, 22) and versions.may_answer(2, 20.5, 22)


def test_older_versions_dont_answer_after_newer_ones(tmp_path):
    versions = Versions()
    versions.begin(2, 1.0)
    log = GOOD.replace("0 plain plain 1 0", "0 release plain 1 0").replace(
        "recv 0 OK 1 7.1.0x1 11", "recv 0 OK 2 7.1.0x1 2")
    assert check(tmp_path, log, versions=versions).disordered == 1
