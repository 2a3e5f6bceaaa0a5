"""Proof of ``acs_core.health``: who is well, and that nobody stays unwell for ever (H1 to H3)."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from acs_core.health import InvokerHealth, Trial
from acs_core.limits import HEALTH_TEST_INTERVAL_US, TIME_MAX_US
from acs_core.sharding import InvokerStatus
from acs_core.sharding_supervision import InvocationResult

results = st.sampled_from(InvocationResult)
# A creation or a run, or a test: None.
happenings = st.lists(
    st.tuples(st.sampled_from([*Trial, None]), results, st.integers(0, 90_000_000)), max_size=60
)


def expected(history: list[tuple[Trial | None, InvocationResult]]) -> InvokerStatus:
    """Return the status after all that happened, from what happened alone."""
    status = InvokerStatus.UNHEALTHY
    for end in range(1, len(history) + 1):
        past = history[:end]
        last = {trial: [r for t, r in past if t in (trial, None)][-10:] for trial in Trial}
        if any(rs.count(InvocationResult.SYSTEM_ERROR) > 3 for rs in last.values()):
            status = InvokerStatus.UNHEALTHY
        elif any(rs.count(InvocationResult.TIMEOUT) > 3 for rs in last.values()):
            status = InvokerStatus.UNRESPONSIVE
        elif past[-1][1] is InvocationResult.SUCCESS:
            status = InvokerStatus.UP
    return status


@given(happenings)
@example([(None, InvocationResult.SYSTEM_ERROR, 0)] * 40)
def test_the_status_is_what_the_last_ten_of_each_say(
    happened: list[tuple[Trial | None, InvocationResult, int]],
) -> None:
    now_us = 0
    health = InvokerHealth(now_us)
    history: list[tuple[Trial | None, InvocationResult]] = []
    for trial, result, later_us in happened:
        now_us += later_us
        before = health.status
        if trial is None:
            health.test_begun()
            changed = health.test_ended(result, now_us)
        else:
            changed = health.completed(trial, result, now_us)
        history.append((trial, result))
        assert health.status == expected(history)
        assert changed == (health.status != before)
        if health.status == InvokerStatus.UP:
            assert health.test_due_us == TIME_MAX_US
        else:
            assert health.test_due_us <= now_us + HEALTH_TEST_INTERVAL_US


@given(happenings, st.data())
def test_ten_tests_that_succeed_bring_it_back(
    happened: list[tuple[Trial | None, InvocationResult, int]], data: st.DataObject
) -> None:
    now_us = 0
    health = InvokerHealth(now_us)
    for trial, result, later_us in happened:
        now_us += later_us
        if trial is None:
            health.test_begun()
            during = data.draw(st.none() | results)
            if during is not None:
                health.completed(Trial.RUN, during, now_us)
                assert health.test_due_us == TIME_MAX_US  # one at a time
            health.test_ended(result, now_us)
        else:
            health.completed(trial, result, now_us)
    tests = 0
    while health.status != InvokerStatus.UP:
        assert health.test_due_us < TIME_MAX_US
        now_us = max(now_us, health.test_due_us)
        health.test_begun()
        health.test_ended(InvocationResult.SUCCESS, now_us)
        tests += 1
        assert tests <= 10
