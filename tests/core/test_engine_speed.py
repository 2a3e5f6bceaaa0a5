"""How fast an engine is, measured from beginnings and ends of creations."""

import pytest

from acs_core.engine_speed import EngineSpeed
from acs_core.events import InvokerReported
from acs_core.limits import CREATION_MAX_US, CREATIONS_MIN_PER_S, ENGINE_SPAN_MAX

S = 1_000_000


def work_off(speed: EngineSpeed, count: int, each_us: int, at_us: int) -> int:
    """Ask for ``count`` at once of an engine that does one after the other; return the end."""
    for number in range(count):
        speed.begin(f"c{number}", at_us)
    for number in range(count):
        at_us += each_us
        speed.end(f"c{number}", at_us, True)
    return at_us


def test_nothing_is_known_before_a_creation_has_ended() -> None:
    speed = EngineSpeed()
    speed.begin("c", 0)
    assert (speed.creation_us, speed.creations_per_s) == (0, 0.0)


def test_the_time_of_creations_alone_is_a_mean_of_the_last_ones() -> None:
    speed = EngineSpeed()
    for at_us, took_us, mean_us in ((0, 400, 400), (1_000, 800, 500), (5_000, 100, 400)):
        speed.begin("c", at_us)
        speed.end("c", at_us + took_us, True)
        assert speed.creation_us == mean_us
    assert speed.creations_per_s == 0.0, "one at a time says nothing of several"


def test_a_creation_beside_others_does_not_count_as_alone() -> None:
    speed = EngineSpeed()
    speed.begin("alone", 0)
    speed.end("alone", 200, True)
    work_off(speed, 4, 250, 1_000)
    assert speed.creation_us == 200


def test_until_one_was_alone_the_shortest_of_the_others_is_taken() -> None:
    speed = EngineSpeed()
    work_off(speed, 3, 300, 0)
    assert speed.creation_us == 300
    work_off(speed, 3, 400, 5_000)
    assert speed.creation_us == 300
    speed.begin("alone", 10_000)
    speed.end("alone", 10_350, True)
    assert speed.creation_us == 350


def test_the_rate_of_an_engine_that_does_one_after_the_other() -> None:
    speed = EngineSpeed()
    work_off(speed, 4, S // 4, 0)
    assert speed.creations_per_s == pytest.approx(4.0)


def test_the_rate_of_an_engine_that_does_several_at_once() -> None:
    speed = EngineSpeed()
    for number in range(4):
        speed.begin(f"c{number}", 0)
    for number in range(4):
        speed.end(f"c{number}", S // 2, True)
    assert speed.creations_per_s == pytest.approx(8.0)


def test_a_loaded_engine_is_measured_anew_also_while_it_is_never_idle() -> None:
    speed = EngineSpeed()
    count, at_us = 3 * ENGINE_SPAN_MAX, 0
    speed.begin("c0", 0)
    for number in range(count):
        speed.begin(f"c{number + 1}", at_us)
        at_us += S // 10
        speed.end(f"c{number}", at_us, True)
    assert speed.creations_per_s == pytest.approx(10.0)
    before = speed.creations_per_s
    for number in range(count, 2 * count):
        speed.begin(f"c{number + 1}", at_us)
        at_us += S
        speed.end(f"c{number}", at_us, True)
    assert 1.0 < speed.creations_per_s < 1.3 < before


def test_a_span_with_a_failure_says_nothing_of_the_rate() -> None:
    speed = EngineSpeed()
    end_us = work_off(speed, 4, S // 4, 0)
    for name in ("a", "b"):
        speed.begin(name, end_us)
    speed.end("a", end_us + S, True)
    speed.end("b", end_us + 30 * S, False)
    assert speed.creations_per_s == pytest.approx(4.0)
    work_off(speed, 4, S // 2, end_us + 60 * S)
    assert speed.creations_per_s == pytest.approx(6 / 2.5)


def test_whatever_is_measured_can_be_reported() -> None:
    speed = EngineSpeed()
    work_off(speed, 2, 2 * CREATION_MAX_US, 0)
    assert speed.creation_us == CREATION_MAX_US
    assert speed.creations_per_s == CREATIONS_MIN_PER_S
    InvokerReported("i", 1, 0, speed.creation_us, speed.creations_per_s)
    quick = EngineSpeed()
    work_off(quick, 2, 0, 0)
    assert (quick.creation_us, quick.creations_per_s) == (1, 2 * S)


def test_an_end_without_a_beginning_is_refused() -> None:
    speed = EngineSpeed()
    with pytest.raises(KeyError):
        speed.end("c", 0, True)
    assert speed.creation_us == 0


def test_a_span_that_begins_with_one_under_way_has_no_overlap_by_that() -> None:
    speed = EngineSpeed()
    for number in range(ENGINE_SPAN_MAX + 1):
        speed.begin(f"c{number}", 0)
    for number in range(ENGINE_SPAN_MAX):
        speed.end(f"c{number}", 100 * (number + 1), True)
    rate = speed.creations_per_s
    assert rate > 0
    speed.end(f"c{ENGINE_SPAN_MAX}", 1_000_000, True)  # alone in the new span, and slow
    assert speed.creations_per_s == rate
