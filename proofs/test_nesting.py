"""Proof of nested calls: programs that call each other and hold their containers meanwhile.

A program is a tree: an activation of some queue calls others, all at once or one after the other,
and ends a little after the last of them has ended, however that was.  The world is kind, so
whatever does not end would be the scheduler's fault.  N1-N4 of docs/invariants.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from harness import SchedulerPair, Times
from hypothesis import given
from hypothesis import strategies as st
from models import at_least

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.nesting import Calls
from acs_core.scheduler import SchedulerConfig

WAIT_MAX_US = 10_000_000_000
# Far more than any program takes, and far less than the wait bound.
TIMEOUT_US = 500_000_000
QUIET_US = 1_000_000_000


@dataclass(frozen=True)
class Program:
    """What an activation does: the queue it is for, its calls, and whether all at once."""

    queue: str
    calls: tuple[Program, ...] = ()
    parallel: bool = False


def depth_of(program: Program) -> int:
    return max([1 + depth_of(call) for call in program.calls], default=0)


class NestedPair(SchedulerPair):
    """A world in which a run makes the calls of its program and waits for them."""

    def __init__(self, memory_mb: int, config: SchedulerConfig) -> None:
        times = Times(creation_us=100_000, init_us=1_000, run_us=5_000, remove_us=10_000)
        super().__init__({"i1": memory_mb}, config=config, keep_alive_us=2_000_000, times=times)
        self.programs: dict[str, Program] = {}
        self.causes: dict[str, tuple[str, ...]] = {}
        self.runs: dict[str, fx.Run] = {}
        self.pending: dict[str, list[str]] = {}
        self.ended: set[str] = set()
        self.reasons: dict[str, str] = {}

    def call(self, name: str, program: Program, causes: tuple[str, ...] = ()) -> None:
        """Let an activation of the program arrive."""
        self.programs[name] = program
        self.causes[name] = causes
        self.accepted.add(name)
        self.tell(ev.Arrived(program.queue, ev.Activation(name, b"", self.now_us, 0, causes)))

    def _carry_out(self, invoker: str, effect: object) -> None:
        if not isinstance(effect, fx.Run):
            super()._carry_out(invoker, effect)
            return
        name = effect.activation.activation_id
        if name not in self.engines[invoker].runs[effect.container]:
            self._start(name)
            self.engines[invoker].runs[effect.container].add(name)
        self.runs[name] = effect
        calls = self.programs[name].calls
        self.pending[name] = [f"{name}.{index}" for index in range(len(calls))]
        self._go_on(name)

    def _go_on(self, name: str) -> None:
        """Make the next call, or all; end when none is left."""
        program, run = self.programs[name], self.runs[name]
        pending = self.pending[name]
        if not pending:
            end = lambda: self._end("i1", run.container, name, ev.Outcome.SUCCESS, 5_000)  # noqa: E731
            self.at(self.times.run_us, end)
            return
        for child in pending if program.parallel else pending[:1]:
            if child not in self.programs:
                call = program.calls[int(child.rpartition(".")[2])]
                make = (child, call, (*self.causes[name], name))
                self.at(0, lambda make=make: self.call(*make))  # type: ignore[misc]

    def _over(self, name: str) -> None:
        """Let who waits for the activation go on."""
        if name in self.ended:
            return
        self.ended.add(name)
        parent = name.rpartition(".")[0]
        if parent in self.pending:
            self.pending[parent].remove(name)
            if not (self.programs[parent].parallel and self.pending[parent]):
                self._go_on(parent)

    def _end(
        self, invoker: str, container: str, name: str, outcome: ev.Outcome, run_us: int = 0
    ) -> None:
        super()._end(invoker, container, name, outcome, run_us)
        if name in self.results:
            self._over(name)

    def _perform(self, effect: object) -> None:
        super()._perform(effect)
        if isinstance(effect, fx.Reject):
            self.reasons[effect.activation.activation_id] = effect.reason
            self._over(effect.activation.activation_id)


QUEUES = ("n/a", "n/b", "n/c", "m/d")


def programs(depth_max: int) -> st.SearchStrategy[Program]:
    queue = st.sampled_from(QUEUES)
    leaf = st.builds(Program, queue)
    level = leaf
    for _ in range(depth_max):
        calls = st.lists(level, min_size=1, max_size=2).map(tuple)
        level = st.one_of(leaf, st.builds(Program, queue, calls, st.booleans()))
    return level


def run(
    plan: list[tuple[Program, int]],
    config: SchedulerConfig,
    memory_mb: int,
    concurrency: int = 1,
    action_limit: int | None = None,
) -> NestedPair:
    """Let the programs come, each so long after the last, and run until nothing is left."""
    pair = NestedPair(memory_mb, config)
    for queue in QUEUES:
        namespace, action = queue.split("/")
        pair.open(
            ev.QueueSpec(
                queue,
                namespace,
                action,
                0,
                memory_mb=100,
                concurrency=concurrency,
                timeout_us=TIMEOUT_US,
                action_limit=action_limit,
            )
        )
    for index, (program, pause_us) in enumerate(plan):
        pair.call(f"p{index}", program)
        pair.advance(pause_us)
    pair.run_until_quiet(QUIET_US)
    # N2: everything has ended, and nothing because it waited too long.
    assert pair.ended == pair.accepted
    for name, cause in pair.rejected.items():
        if cause is fx.Cause.NO_CONTAINER:
            # The original drops what waits where its namespace is full.
            assert isinstance(config.rule, OpenWhiskRule)
            continue
        assert cause is fx.Cause.CALLERS_HOLD
        assert pair.causes[name]  # only calls are refused
        assert " > ".join([*pair.causes[name], name]) in pair.reasons[name]
    return pair


pauses = st.sampled_from([0, 0, 1_000, 200_000, 3_000_000])


def config_of(rule: object, cap: int, reserve: int) -> SchedulerConfig:
    return SchedulerConfig(
        name="c",
        rule=rule,  # type: ignore[arg-type]
        wait_max_us=WAIT_MAX_US,
        namespace_containers_max=cap,
        namespace_reserve=reserve,
    )


rules = st.sampled_from([RuntimeFitRule(), OpenWhiskRule()])


@at_least(400)
@given(
    plan=st.lists(st.tuples(programs(3), pauses), min_size=1, max_size=8),
    rule=rules,
    cap=st.integers(1, 4),
    reserve=st.integers(0, 3),
    concurrency=st.sampled_from([1, 1, 2]),
)
def test_calls_within_the_reserve_are_served_and_the_rest_ends(
    plan: list[tuple[Program, int]], rule: object, cap: int, reserve: int, concurrency: int
) -> None:
    pair = run(plan, config_of(rule, cap, reserve), 10_000, concurrency)
    depth = min(reserve, cap - 1)
    for name, cause in pair.rejected.items():
        assert cause is fx.Cause.NO_CONTAINER or len(pair.causes[name]) > depth  # N1


@at_least(200)
@given(
    plan=st.lists(st.tuples(programs(2), pauses), min_size=1, max_size=6),
    rule=rules,
    memory_mb=st.sampled_from([100, 200, 350]),
    action_limit=st.sampled_from([None, 1, 2]),
)
def test_where_memory_or_the_actions_limit_binds_everything_ends_as_well(
    plan: list[tuple[Program, int]], rule: object, memory_mb: int, action_limit: int | None
) -> None:
    run(plan, config_of(rule, 10, 1), memory_mb, action_limit=action_limit)


@at_least(100)
@given(
    plan=st.lists(st.tuples(programs(0), pauses), min_size=1, max_size=20), cap=st.integers(2, 4)
)
def test_work_without_causes_leaves_the_reserve_alone(
    plan: list[tuple[Program, int]], cap: int
) -> None:
    pair = NestedPair(10_000, config_of(RuntimeFitRule(), cap, 1))
    for queue in QUEUES:
        namespace, action = queue.split("/")
        pair.open(ev.QueueSpec(queue, namespace, action, 0, memory_mb=100))
    for index, (program, pause_us) in enumerate(plan):
        pair.call(f"p{index}", program)
        pair.advance(pause_us)
        held = [namespace for namespace, _, _ in pair._granted.values()]
        assert max(held.count("n"), held.count("m")) <= cap - 1  # N4
    pair.run_until_quiet(QUIET_US)
    assert not pair.rejected


@given(
    plan=st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("xyz"), max_size=3)))
)
def test_calls_are_counted_for_each_of_their_causes(plan: list[tuple[str, list[str]]]) -> None:
    calls = Calls()
    there: dict[str, ev.Activation] = {}
    for name, causes in plan:
        if name in there:
            calls.leave(there.pop(name))
        else:
            there[name] = ev.Activation(name, b"", 0, 0, tuple(causes))
            calls.enter(there[name])
        calls.check()
        expected = [cause for call in there.values() for cause in call.causes]
        assert calls.below == {cause: expected.count(cause) for cause in expected}


def test_of_calls_that_hold_each_other_up_the_one_beyond_the_reserve_is_refused() -> None:
    first = Program("n/a", (Program("n/a"),))
    second = Program("m/d", (Program("n/b", (Program("n/a"),)),))
    pair = run([(first, 0), (second, 0)], config_of(RuntimeFitRule(), 2, 1), 10_000)
    assert set(pair.rejected) == {"p1.0.0"}  # N1


@pytest.mark.parametrize("parallel", [True, False])
def test_the_deepest_call_that_the_reserve_allows_is_served(parallel: bool) -> None:
    inner = Program("n/c")
    for queue in ("n/b", "n/a", "n/c"):
        inner = Program(queue, (inner, inner), parallel)
    pair = run([(inner, 0)] * 3, config_of(RuntimeFitRule(), 4, 3), 10_000)
    assert not pair.rejected
