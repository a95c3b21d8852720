# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Proves from the clients' logs that every request had the one answer that it may have.

What each kind of session can show:

- A stream that ended with OK has answered every request, in its place, with the right values. One
  that the drain ended has told how many requests it read, and so many answers came, those to the
  first requests in their places; a broken connection tells nothing and is lost.
- A unary call has the one answer that it may have. A drain excuses only calls that it can have
  found unread.
- After a cancel gRPC's clients show nothing that still comes, so their sessions prove only that no
  request sent later is answered. Raw sessions show every frame until their connection ends: answers
  that were under way may come until the server has answered a ping sent behind the cancel, then not
  a byte of one may (a status may: gRPC sends one for a stream that is no more); and soon nothing of
  the model, which nobody else uses, may be in flight, while others go on. What the server computed
  and dropped unsent they can't show.
- Who was frozen saw nothing meanwhile. Only a client that stood for longer than TCP_TIMEOUT may
  find its connection broken: gRPC sets TCP_USER_TIMEOUT on a server's connections, and Linux ends
  one whose peer has kept its window shut for so long. And one that stood when the drain closed the
  connections may find so, too: those are kept for half a second after the last answer was sent.
"""

import collections
import time
from dataclasses import dataclass, field

import events
import wire

ALLOWED = {  # What an order may be answered with; a plain request of a stream only OK.
    "plain": {"OK"}, "fail": {"INTERNAL"}, "crash": {"INTERNAL"}, "hang": {"INTERNAL"},
    "fill": {"INTERNAL", "RESOURCE_EXHAUSTED"}}
DROPPED = {"ABORTED", "RESOURCE_EXHAUSTED"}
MOST_SPELLED_OUT = 10
MOST_BEFORE = 12  # Faults that are shown with a failure: the last of so many seconds before it.
SECONDS_BEFORE = 20
TCP_TIMEOUT = 20  # Seconds: the server's GRPC_ARG_KEEPALIVE_TIMEOUT_MS.
READ_WITHIN = 2  # Seconds after which a unary call counts as read.
SLACK = 0.05  # Seconds by which a client's own deadline may seem to come too early.


@dataclass
class Versions:
    """Which version of `release` may have answered when."""

    # version: when its load was asked for, and when the swap to it was over. None: it failed.
    loads: dict = field(default_factory=lambda: {1: (0.0, 0.0)})

    def begin(self, version, when):
        self.loads[version] = (when, float("inf"))

    def end(self, version, when, loaded):
        """`loaded`: True, False, or None where nobody knows."""
        if loaded is False:
            del self.loads[version]
        elif loaded:
            self.loads[version] = (self.loads[version][0], when)

    def may_answer(self, version, sent, received):
        if version not in self.loads or self.loads[version][0] > received:
            return False
        # A copy, since another thread may begin a load meanwhile.
        later = [over for number, (_, over) in list(self.loads.items()) if number > version]
        return sent <= min(later, default=float("inf"))


@dataclass
class Sent:
    event: events.Event
    model: str
    order: str
    rows: int
    limit: float
    answer: events.Event | None = None
    cancelled: float | None = None


@dataclass(frozen=True)
class Cancel:
    """What came of one, in a raw session."""

    unanswered: int  # Requests.
    under_way: int  # Answers that came before the server knew.
    forgotten_after: float  # Seconds until nothing of it was in flight.


class Checker:
    """Takes the logs of clients that have ended. Confined to one thread but for violation()."""

    def __init__(self, versions):
        self.versions = versions
        self.faults = []  # (when, what was done), as they come.
        self.connections_fail = []  # (from, until): connections may be refused then.
        self.draining_from = float("inf")
        self.cancels = []
        # Streams that ended saying how far they came, and had come so far: some way, or none.
        self.told = self.told_none = 0
        self.requests = collections.Counter()  # By order.
        self.answers = collections.Counter()  # By order and code.
        self.sessions = collections.Counter()  # By kind and how they ended.
        self.lost = self.disordered = self.wrong = 0
        self.violations = []  # The first, spelled out.
        self.violations_count = 0

    @property
    def clean(self):
        return not self.violations

    def violation(self, text, *lines, when=None):
        """`when`: what had been done to the server shortly before is shown with it."""
        self.violations_count += 1
        if len(self.violations) >= MOST_SPELLED_OUT:
            return
        when = time.monotonic() if when is None else when
        before = [f"{when - at:7.3f} s before: {what}" for at, what in list(self.faults)
                  if 0 <= when - at <= SECONDS_BEFORE]
        self.violations.append("\n    ".join((
            text, *(str(line) for line in lines if line), *before[-MOST_BEFORE:])))

    def take(self, path, client, ended, frozen=()):
        """`ended`: the process ended by itself, so its log has all of it. `frozen`: (from, until)
        when it stood."""
        sessions = collections.defaultdict(list)
        for event in events.read(path):
            sessions[event.session].append(event)
        for number, log in sessions.items():
            _Session(self, client, number, log, ended, frozen).check()

    def connection_may_fail(self, begun, ended):
        return any(since <= ended and begun <= until for since, until in self.connections_fail)


class _Session:
    def __init__(self, checker, client, number, log, ended, frozen):
        self.checker, self.log, self.ended, self.frozen = checker, log, ended, frozen
        self.sender = (client, number)
        opened = log[0]
        self.kind, self.how = opened.fields[0], opened.fields[1:]
        self.sent = {}
        self.end = None
        self.cancelled = self.acked = self.forgotten_after = None
        self.under_way = 0
        self.answers = []

    def fail(self, text, *lines):
        client, session = self.sender
        stood = [f"the client stood from {since:.4f} to {until:.4f}"
                 for since, until in self.frozen]
        last = self.answers[-1].answer if self.answers else None
        lines = [line for line in (*lines, self.end) if line]
        self.checker.violation(
            f"client {client}, {self.kind} {session} {' '.join(self.how)}: {text}", self.log[0],
            f"{len(self.sent)} sent, {len(self.answers)} answered" + (
                f", the last: {last}" if last else ""), *lines, *stood,
            when=max((line.time for line in lines), default=self.log[-1].time))

    def may_be_cut(self, when):
        """Whether the connection may break at that time since the client stood."""
        return any((when >= since + TCP_TIMEOUT and until - since >= TCP_TIMEOUT)
                   or (until >= self.checker.draining_from and when >= self.checker.draining_from)
                   for since, until in self.frozen)

    def stood(self, begun, ended):
        return any(since <= ended and begun <= until for since, until in self.frozen)

    def check(self):
        for event in self.log:
            getattr(self, f"take_{event.name}")(event)
        self.checker.sessions[
            f"{self.kind} {self.end.fields[0] if self.end else 'killed'}"] += 1
        if self.kind == "stream":
            self.check_end()
            self.check_order()
        elif self.kind == "raw":
            self.check_cancel()
            self.check_order()
        elif self.ended:
            for sent in self.sent.values():
                if sent.answer is None:
                    self.lose("a call has no answer", sent.event)
        self.check_versions()

    def lose(self, text, *lines, count=1):
        self.checker.lost += count
        self.fail(f"lost: {text}", *lines)

    # ---- Event by event ----

    def take_open(self, event):
        pass

    def take_send(self, event):
        number, model, order, rows, limit = event.fields
        self.sent[int(number)] = Sent(event, model, order, int(rows), float(limit))
        self.checker.requests[order] += 1

    def take_cancel(self, event):
        if self.kind != "unary":
            self.cancelled = event.time
        else:
            self.sent[int(event.fields[0])].cancelled = event.time

    def take_end(self, event):
        self.end = event

    def take_acked(self, event):
        self.acked = event

    def take_late(self, event):
        self.checker.wrong += 1
        self.fail("an answer came after the server knew that the stream was cancelled",
                  self.acked, event)

    def take_idle(self, event):
        self.forgotten_after = float(event.fields[0])

    def take_busy(self, event):
        self.forgotten_after = float("inf")
        self.checker.wrong += 1
        self.fail("requests that were cancelled are in flight", self.acked, event)

    def take_recv(self, event):
        number, code, version, said, added = event.fields
        sent = self.sent.get(int(number))
        if sent is None or sent.answer is not None:
            self.checker.wrong += 1
            return self.fail("an answer to no request, or a second one", event)
        sent.answer = event
        self.answers.append(sent)
        self.checker.answers[sent.order, code] += 1
        self.under_way += self.cancelled is not None
        if self.cancelled is not None and sent.event.time > self.cancelled:
            self.checker.wrong += 1
            self.fail("what was sent after cancelling was answered", sent.event, event)
        if code not in self.allowed(sent, event):
            self.checker.wrong += 1
            self.fail(f"{code} isn't what this may be answered with", sent.event, event)
        elif code == "OK":
            self.check_value(sent, event, version, said, added)

    def allowed(self, sent, answer):
        codes = set(ALLOWED[sent.order])
        if sent.limit:
            codes.add("DEADLINE_EXCEEDED")
        if "drops" in self.how:
            codes |= DROPPED
        if self.kind == "unary":
            codes.add("RESOURCE_EXHAUSTED")
            if sent.cancelled is not None:
                codes.add("CANCELLED")
            unread = answer.time >= self.checker.draining_from and (
                sent.event.time >= self.checker.draining_from - READ_WITHIN
                or self.stood(sent.event.time, answer.time))
            if (unread or self.may_be_cut(answer.time)
                    or self.checker.connection_may_fail(sent.event.time, answer.time)):
                codes.add("UNAVAILABLE")
            if sent.event.time >= self.checker.draining_from:
                codes.add("CANCELLED")
        return codes

    def check_value(self, sent, event, version, said, added):
        asked = wire.asked(sent.model, self.sender, int(event.fields[0]), sent.rows)
        amount = int(version) if sent.model == "release" else wire.AMOUNTS.get(sent.model, 0)
        if said != asked or int(added) != amount:
            self.checker.wrong += 1
            self.fail(f"the values don't answer it: expected {asked}+{amount}", sent.event, event)
        elif sent.model == "release" and not self.checker.versions.may_answer(
                int(version), sent.event.time, event.time):
            self.checker.wrong += 1
            self.fail("that version can't have been serving", sent.event, event)

    # ---- As a whole ----

    def check_end(self):
        """A stream that ended well has answered all; another one has told why it didn't."""
        if self.end is None:
            if self.ended:
                self.lose("the stream never ended", self.log[-1])
            return
        code, answered = self.end.fields[0], int(self.end.fields[1])
        open_answers = [sent for sent in self.sent.values() if sent.answer is None]
        if code == "OK":
            if open_answers:
                self.lose(f"{len(open_answers)} requests have no answer", open_answers[0].event,
                          count=max(1, len(open_answers)))
        elif code == "UNAVAILABLE" and answered >= 0:
            if self.end.time < self.checker.draining_from or answered != len(self.answers):
                self.lose(f"{len(self.answers)} answers came, and the server says {answered}")
            elif answered:
                self.checker.told += 1
            else:
                self.checker.told_none += 1
        elif code == "UNAVAILABLE":
            refused = not self.answers and (
                self.end.time >= self.checker.draining_from
                or self.checker.connection_may_fail(self.log[0].time, self.end.time))
            if not refused and not self.may_be_cut(self.end.time):
                self.lose("the connection broke", self.log[-1])
        elif code == "CANCELLED":
            # A server that ends resets what came in when it had finished with all others.
            unread = not self.answers and self.log[0].time >= self.checker.draining_from
            if self.cancelled is None and not unread:
                self.lose("cancelled by nobody")
        elif code == "DEADLINE_EXCEEDED":
            deadline = next((float(word.partition("=")[2]) for word in self.how
                             if word.startswith("deadline=")), None)
            if deadline is None:
                self.lose("no answer for so long", *(sent.event for sent in open_answers[:1]),
                          count=max(1, len(open_answers)))
            elif self.end.time - self.log[0].time < deadline - SLACK:
                self.lose("ended before its deadline")
        else:
            self.lose(f"ended with {code}")

    def check_cancel(self):
        code = self.end.fields[0] if self.end else "none"
        if code == "CANCELLED":
            if self.acked is None or self.forgotten_after is None:
                self.checker.wrong += 1
                return self.fail("nothing shows that the cancelled requests were dropped")
            answered = len(self.answers)
            self.checker.cancels.append(Cancel(len(self.sent) - answered, self.under_way,
                                               self.forgotten_after))
        elif code == "UNAVAILABLE":
            if (self.end.time < self.checker.draining_from and not self.may_be_cut(self.end.time)
                    and not self.checker.connection_may_fail(self.log[0].time, self.end.time)):
                self.lose("the connection broke")
        elif self.ended:
            self.lose(f"ended with {code}")
        return None

    def check_order(self):
        """Answers are those to the first requests, in their order where the stream wants it."""
        numbers = [int(sent.answer.fields[0]) for sent in self.answers]
        if "unordered" in self.how:
            complete = self.end is not None and self.end.fields[0] in ("OK", "UNAVAILABLE")
            if not complete:
                return
            numbers.sort()
        for expected, number in enumerate(numbers):
            if number != expected:
                self.checker.disordered += 1
                return self.fail(f"answer {expected} is that of request {number}",
                                 self.sent[number].event, self.sent[number].answer)

    def check_versions(self):
        """Who was answered by a version is not answered by an older one any more."""
        newest = 0
        for sent in self.answers if "unordered" not in self.how else ():
            if sent.model != "release" or sent.answer.fields[1] != "OK":
                continue
            version = int(sent.answer.fields[2])
            if version < newest and self.kind == "stream":
                self.checker.disordered += 1
                self.fail(f"version {version} answered after {newest}", sent.event, sent.answer)
            newest = max(newest, version)
