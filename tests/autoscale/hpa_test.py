# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The formula and the defaults of the HPA, by the examples of Kubernetes' documentation
(kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale)."""

from hpa import Autoscaler, Behaviour, Policy, Rules, proposed, proposed_by_pods

HASTY = Rules(0, (Policy("Percent", 100, 15),))


def test_twice_the_target_doubles_and_half_of_it_halves():
    assert proposed(3, 0.2, 0.1) == 6
    assert proposed(4, 0.05, 0.1) == 2


def test_what_is_within_a_tenth_of_the_target_changes_nothing():
    assert proposed(10, 54.9, 50) == 10
    assert proposed(10, 45.1, 50) == 10
    assert proposed(10, 55.1, 50) == 12


def test_pods_without_a_value_dampen_either_way():
    assert proposed_by_pods(2, [2, 2], 1) == 4
    assert proposed_by_pods(3, [2, 2], 1) == 4  # (2 + 2 + 0) / 3
    assert proposed_by_pods(3, [0.5, 0.5], 1) == 2  # (0.5 + 0.5 + 1) / 3
    assert proposed_by_pods(4, [1.5], 1) == 4  # It would turn the direction.
    assert proposed_by_pods(4, [], 1) == 4


def test_defaults_add_four_pods_or_as_many_as_there_are_in_15_seconds():
    scaler = Autoscaler(1, 100)
    assert scaler.decide(0, 1, 50) == 5
    assert scaler.decide(5, 5, 50) == 5
    assert scaler.decide(15, 5, 50) == 10
    assert scaler.decide(30, 10, 50) == 20


def test_900_percent_a_minute_goes_1_10_100_1000():
    up = Rules(0, (Policy("Percent", 900, 60),))
    scaler = Autoscaler(1, 1000, Behaviour(up=up, down=HASTY))
    run = [1]
    for minute in range(3):
        run.append(scaler.decide(60 * minute, run[-1], 1000))
    assert run == [1, 10, 100, 1000]


def test_four_pods_or_ten_percent_a_minute_take_whichever_is_more():
    down = Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60)))
    scaler = Autoscaler(1, 100, Behaviour(down=down))
    run = [80]
    for minute in range(9):
        run.append(scaler.decide(60 * minute, run[-1], 10))
    assert run == [80, 72, 64, 57, 51, 45, 40, 36, 32, 28]


def test_scaling_in_waits_until_five_minutes_have_asked_for_no_more():
    scaler = Autoscaler(1, 10)
    assert scaler.decide(0, 8, 8) == 8
    for second in range(15, 301, 15):
        assert scaler.decide(second, 8, 2) == 8
    assert scaler.decide(315, 8, 2) == 2


def test_bounds_hold_and_without_a_metric_nothing_changes():
    scaler = Autoscaler(2, 4)
    assert scaler.decide(0, 3, 100) == 4
    assert scaler.decide(15, 4, None) == 4
    assert scaler.decide(400, 4, 0) == 2


def test_a_faster_time_scales_every_duration():
    fast = Behaviour().faster(10)
    assert fast.down.stabilisation == 30
    assert [policy.period for policy in (*fast.up.policies, *fast.down.policies)] == [1.5] * 3
