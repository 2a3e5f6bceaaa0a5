"""The stepper: order of effects, timers, and effects that fail."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from waiting import until

from acs_core.containers import ContainerPool
from acs_core.events import DrainRequested, Event, TimeReached
from acs_node import clock, stepper
from acs_node.stepper import Steppable, Stepper


class Said(Event):
    """An event of the scripted core."""

    def __init__(self, *effects: object) -> None:
        self.effects = effects


class ScriptedCore:
    """Returns the effects that the event carries, and the deadline that the test sets."""

    def __init__(self) -> None:
        self.due_us: int | None = None
        self.stepped: list[Event] = []
        self.on_time: Callable[[], list[object]] = list

    def step(self, event: Event, now_us: int) -> list[object]:
        self.stepped.append(event)
        if isinstance(event, TimeReached):
            return self.on_time()
        assert isinstance(event, Said)
        return list(event.effects)

    def next_deadline_us(self) -> int | None:
        return self.due_us

    @property
    def ticks(self) -> int:
        return sum(isinstance(event, TimeReached) for event in self.stepped)


def no_failure(effect: object, cause: str) -> None:
    raise AssertionError(f"{effect} failed: {cause}")


def test_the_cores_are_steppable() -> None:
    cores: list[Steppable] = [ContainerPool(), ScriptedCore()]
    assert [core.next_deadline_us() for core in cores] == [None, None]


async def test_effects_are_performed_in_order() -> None:
    done: list[object] = []
    made = Stepper(ScriptedCore(), {str: done.append, int: done.append}, no_failure)
    made.step(Said("a", 1, "b", 2))
    assert done == ["a", 1, "b", 2]


async def test_what_follows_from_a_nested_step_comes_after_what_was_asked_for_before() -> None:
    core = ScriptedCore()
    done: list[str] = []

    def perform(effect: str) -> None:
        done.append(effect)
        if effect == "a":
            made.step(Said("nested 1", "nested 2"))
            assert len(core.stepped) == 2, "the event itself is applied at once"

    made = Stepper(core, {str: perform}, no_failure)
    made.step(Said("a", "b"))
    made.step(Said("c"))
    assert done == ["a", "b", "nested 1", "nested 2", "c"]


async def test_an_effect_that_fails_is_answered_for_and_the_others_are_performed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []
    failed: list[tuple[object, str]] = []

    def perform(effect: str) -> None:
        if effect.startswith("bad"):
            raise ValueError("planted")
        done.append(effect)

    def answer(effect: object, cause: str) -> None:
        failed.append((effect, cause))
        if effect == "bad 2":
            raise RuntimeError("the answer fails as well")

    made = Stepper(ScriptedCore(), {str: perform}, answer)
    with caplog.at_level(logging.ERROR):
        made.step(Said("a", "bad 1", "bad 2", 7, "b"))
        made.step(Said("c"))
    assert done == ["a", "b", "c"]
    assert failed[:2] == [("bad 1", "ValueError: planted"), ("bad 2", "ValueError: planted")]
    assert failed[2][0] == 7, "nobody performs this one"
    assert "the answer fails as well" in caplog.text


async def test_a_step_that_raises_comes_through_and_the_next_one_works() -> None:
    done: list[str] = []
    made = Stepper(ContainerPool(), {str: done.append}, no_failure)
    with pytest.raises(TypeError, match="Said is no event of a pool"):
        made.step(Said())
    made.step(DrainRequested())
    assert done == []


async def test_the_core_is_stepped_at_its_deadline() -> None:
    core = ScriptedCore()
    made = Stepper(core, {}, no_failure)
    core.due_us = due_us = clock.now_us() + 20_000
    core.on_time = lambda: setattr(core, "due_us", None) or []  # type: ignore[func-returns-value]
    made.step(Said())
    assert core.ticks == 0
    await until(lambda: core.ticks, "the tick")
    assert clock.now_us() >= due_us - 1_500  # the loop's clock has milliseconds
    made.close()


async def test_an_earlier_deadline_moves_the_timer_and_a_later_one_does_not() -> None:
    core = ScriptedCore()
    made = Stepper(core, {}, no_failure)
    core.due_us = clock.now_us() + 3_600_000_000
    made.step(Said())
    late = made._timer
    core.due_us += 1_000_000
    made.step(Said())
    assert made._timer is late
    core.due_us = clock.now_us() + 5_000
    made.step(Said())
    assert made._timer is not late
    core.on_time = lambda: setattr(core, "due_us", None) or []  # type: ignore[func-returns-value]
    await until(lambda: core.ticks, "the tick of the earlier deadline")
    made.close()


async def test_a_deadline_that_is_over_is_met_in_the_next_turn_and_each_one_after_it() -> None:
    core = ScriptedCore()
    made = Stepper(core, {}, no_failure)
    core.due_us = clock.now_us() - 1_000
    made.step(Said())
    await until(lambda: core.ticks >= 3, "three ticks")
    made.close()


async def test_a_timed_step_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stepper, "RETRY_S", 0.005)
    core = ScriptedCore()
    done: list[str] = []
    made = Stepper(core, {str: done.append}, no_failure)

    def on_time() -> list[object]:
        if core.ticks == 1:
            raise AssertionError("planted")
        core.due_us = None
        return ["expired"]

    core.on_time = on_time
    core.due_us = clock.now_us()
    with caplog.at_level(logging.ERROR):
        made.step(Said())
        await until(lambda: done, "the second try")
    assert done == ["expired"]
    assert "a timed step failed" in caplog.text
    made.close()


async def test_after_close_no_timer_fires() -> None:
    core = ScriptedCore()
    made = Stepper(core, {}, no_failure)
    core.due_us = clock.now_us() + 2_000
    made.step(Said())
    made.close()
    fired = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, fired.set_result, None)
    await fired
    assert core.ticks == 0
