# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) decides, as its documentation says: a
ratio with a tolerance, recommendations that are stabilised, and policies that bound the pace."""

import dataclasses
import math
from typing import List, Optional, Sequence, Tuple

TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Policy:
    kind: str  # "Pods" or "Percent".
    value: int
    period: float  # Seconds.


@dataclasses.dataclass(frozen=True)
class Rules:
    """One direction's part of `behavior`; of its policies the one that allows most counts."""

    stabilisation: float  # Seconds.
    policies: Sequence[Policy]


@dataclasses.dataclass(frozen=True)
class Behaviour:
    up: Rules = Rules(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15)))
    down: Rules = Rules(300, (Policy("Percent", 100, 15),))

    def faster(self, factor):
        """The same, in a time that runs so many times as fast."""
        def sped(rules):
            return Rules(rules.stabilisation / factor, tuple(
                dataclasses.replace(policy, period=policy.period / factor)
                for policy in rules.policies))
        return Behaviour(sped(self.up), sped(self.down))


def proposed(current: int, value: float, target: float) -> int:
    """The replicas that bring a metric to its target; as many as now if it is near enough."""
    ratio = value / target
    return current if abs(ratio - 1) <= TOLERANCE else math.ceil(current * ratio)


def proposed_by_pods(current: int, values: Sequence[float], target: float) -> int:
    """The same from a value of each pod. A pod without one (there are `current`) counts as idle
    where pods would be added, as being at the target where some would be taken away."""
    if not values:
        return current
    missing = max(0, current - len(values))
    ratio = sum(values) / len(values) / target
    if abs(ratio - 1) <= TOLERANCE or not missing:
        return proposed(current, ratio, 1)
    filled = sum(values) + (missing * target if ratio < 1 else 0)
    again = filled / (len(values) + missing) / target
    if (again > 1) != (ratio > 1):
        return current
    return proposed(len(values) + missing, again, 1)


class Autoscaler:
    """Remembers what was recommended and done. Not thread-safe; time is the caller's."""

    def __init__(self, least: int, most: int, behaviour: Behaviour = Behaviour()):
        self._least, self._most, self._behaviour = least, most, behaviour
        self._recommended: List[Tuple[float, int]] = []
        self._changes: List[Tuple[float, int]] = []  # When, and by how many.

    def decide(self, now: float, current: int, recommended: Optional[int]) -> int:
        """How many to run now; without a recommendation (no metric) as many as there are."""
        if recommended is None:
            return current
        self._recommended.append((now, recommended))
        up, down = self._behaviour.up, self._behaviour.down
        wanted = current
        lowest = min(n for at, n in self._recommended if at >= now - up.stabilisation)
        highest = max(n for at, n in self._recommended if at >= now - down.stabilisation)
        wanted = min(max(wanted, lowest), highest)
        if wanted > current:
            wanted = min(wanted, max(self._limit(now, current, policy) for policy in up.policies))
            wanted = max(wanted, current)
        elif wanted < current:
            wanted = max(wanted, min(self._limit(now, current, policy, down=True)
                                     for policy in down.policies))
            wanted = min(wanted, current)
        wanted = max(self._least, min(self._most, wanted))
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _limit(self, now, current, policy, down=False):
        """The replicas that a policy lets there be: counted from those at its period's begin."""
        recent = [by for at, by in self._changes if at > now - policy.period]
        if down:
            begin = current - sum(by for by in recent if by < 0)
            if policy.kind == "Pods":
                return begin - policy.value
            return begin * (100 - policy.value) // 100
        begin = current - sum(by for by in recent if by > 0)
        if policy.kind == "Pods":
            return begin + policy.value
        return -(-begin * (100 + policy.value) // 100)
