"""When an invoker counts as well, and when it is tested."""

import pytest

from acs_core.health import InvokerHealth, Trial
from acs_core.limits import TIME_MAX_US
from acs_core.sharding import InvokerStatus
from acs_core.sharding_supervision import InvocationResult

GOOD, BAD, LATE = (
    InvocationResult.SUCCESS,
    InvocationResult.SYSTEM_ERROR,
    InvocationResult.TIMEOUT,
)
UP, UNHEALTHY, UNRESPONSIVE = (
    InvokerStatus.UP,
    InvokerStatus.UNHEALTHY,
    InvokerStatus.UNRESPONSIVE,
)
S = 1_000_000


def after(health: InvokerHealth, result: InvocationResult, now_us: int) -> bool:
    health.test_begun()
    assert health.test_due_us == TIME_MAX_US
    return health.test_ended(result, now_us)


def well() -> InvokerHealth:
    health = InvokerHealth(0)
    assert after(health, GOOD, 0)
    return health


def test_it_begins_unproven_and_a_test_is_due_at_once() -> None:
    health = InvokerHealth(5)
    assert (health.status, health.test_due_us) == (UNHEALTHY, 5)
    assert after(health, GOOD, 6)
    assert (health.status, health.test_due_us) == (UP, TIME_MAX_US)


def test_a_first_test_that_fails_makes_nobody_well() -> None:
    # It does in the original, where one bad one of ten is few.
    health = InvokerHealth(0)
    assert not after(health, BAD, 0)
    assert health.status == UNHEALTHY


@pytest.mark.parametrize(("result", "status"), [(BAD, UNHEALTHY), (LATE, UNRESPONSIVE)])
@pytest.mark.parametrize("trial", list(Trial))
def test_more_than_three_bad_ones_of_ten(
    trial: Trial, result: InvocationResult, status: InvokerStatus
) -> None:
    health = well()
    assert [health.completed(trial, result, n) for n in range(4)] == [False, False, False, True]
    assert (health.status, health.test_due_us) == (status, 3)


def test_three_bad_ones_among_ten_are_borne_for_ever() -> None:
    health = well()
    for _ in range(20):
        for result in (BAD, BAD, BAD, *[GOOD] * 7):
            assert not health.completed(Trial.CREATION, result, 0)
    assert health.status == UP


def test_errors_of_both_kinds_are_not_added_up() -> None:
    health = well()
    for result in (BAD, LATE) * 3:
        assert not health.completed(Trial.CREATION, result, 0)
    assert health.completed(Trial.CREATION, LATE, 0)
    assert health.status == UNRESPONSIVE
    assert health.completed(Trial.CREATION, BAD, 1)
    assert (health.status, health.test_due_us) == (UNHEALTHY, 0)


def test_runs_do_not_hide_that_nothing_is_created_any_more() -> None:
    health = well()
    for _ in range(4):
        health.completed(Trial.CREATION, BAD, 0)
        for _ in range(100):
            health.completed(Trial.RUN, GOOD, 0)
    assert health.status == UNHEALTHY


def test_tests_that_fail_come_more_seldom_and_never_end() -> None:
    health = InvokerHealth(0)
    waits = []
    now_us = 0
    for _ in range(10):
        after(health, BAD, now_us)
        waits.append((health.test_due_us - now_us) // S)
        now_us = health.test_due_us
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_it_comes_back_by_tests_alone_one_right_after_the_other() -> None:
    health = InvokerHealth(0)
    for _ in range(10):
        after(health, BAD, 0)
    changes = []
    while health.status != UP:
        changes.append(after(health, GOOD, 7))
        assert health.test_due_us in (7, TIME_MAX_US)
    assert changes == [False] * 6 + [True]
    # And if it fails anew, the first test is due at once.
    assert [health.completed(Trial.RUN, BAD, 9) for _ in range(4)] == [False] * 3 + [True]
    assert (health.status, health.test_due_us) == (UNHEALTHY, 9)


def test_one_test_at_a_time() -> None:
    health = well()
    for _ in range(3):
        health.completed(Trial.RUN, BAD, 0)
    health.test_begun()
    assert health.completed(Trial.RUN, BAD, 1)
    assert health.test_due_us == TIME_MAX_US
    assert not health.test_ended(BAD, 2)
    assert health.test_due_us == 2 + S


def test_a_run_that_succeeds_is_as_good_as_a_test() -> None:
    health = InvokerHealth(0)
    assert health.completed(Trial.RUN, GOOD, 1)
    assert not health.completed(Trial.RUN, GOOD, 2)
    assert (health.status, health.test_due_us) == (UP, TIME_MAX_US)
