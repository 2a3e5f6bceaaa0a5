"""The defaults that users see, in other units: changing one is a decision, not an accident."""

from __future__ import annotations

from acs_core import limits
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.scheduler import SchedulerConfig

SECOND = 1_000_000


def test_what_a_scheduler_keeps_to_unless_told_otherwise() -> None:
    config = SchedulerConfig()
    assert (config.waiting_max, config.waiting_low_fraction) == (10_000, 0.9)
    assert (config.wait_max_us, config.idle_grace_us) == (60 * SECOND, 20 * SECOND)
    assert config.stop_grace_us == 20 * SECOND
    assert config.namespace_containers_max == 10_000
    assert (config.decision_interval_us, config.backlog_interval_us) == (SECOND / 10, SECOND / 200)
    assert (config.retry_min_us, config.retry_max_us) == (SECOND / 10, 10 * SECOND)
    assert (config.reserve_answer_us, config.create_answer_us) == (10 * SECOND, 120 * SECOND)
    assert limits.BLACKBOX_WAIT_MAX_US == 300 * SECOND
    assert config.give_back
    assert not config.report_decisions


def test_what_a_pool_keeps_to_unless_told_otherwise() -> None:
    config = PoolConfig()
    assert (config.memory_mb, config.keep_alive_us) == (1_024, 10 * SECOND)
    assert (config.pause_grace_us, config.prewarm_check_us) == (0, 600 * SECOND)
    assert ContainerPool().config == config


def test_bounds_that_nobody_can_set() -> None:
    assert (limits.LOOKS_MAX, limits.LINE_MAX, limits.ROOM_SCAN_MAX) == (8, 16, 10_000)
    assert (limits.RESERVE_MAX, limits.ASKS_MAX, limits.GIVEN_UP_MAX) == (100, 100, 1_000)
    assert (limits.SPREAD_QUEUES_MAX, limits.ENGINE_SPAN_MAX) == (64, 8)
    assert limits.FLOOR_INTERVAL_US == SECOND
    assert (limits.HISTORY_MAX, limits.TYPICAL_ACTIONS) == (10_000, 31)
    assert limits.TYPICAL_KNOWN_MIN == 5
    assert limits.CONCURRENCY_MAX == 1_000
    assert limits.EPOCHS_MAX == 100_000
    assert limits.NAME_MAX == 1_024
    assert limits.WEIGHT_MAX == 1_000.0
    assert (limits.CALLS_RESERVE, limits.CAUSES_MAX) == (1, 100)
    assert (limits.PREWARM_MAX, limits.PREWARM_EXPIRIES_MAX) == (1_000, 100)
    assert (limits.MEMORY_MAX_MB, limits.CREATION_MAX_US) == (2**40, 2**40)
    assert limits.COUNT_MAX == 2**31 - 1
    # The sum of two times is within 64 bits with its sign.
    assert 2 * limits.TIME_MAX_US < 2**63


def test_what_is_reckoned_with() -> None:
    assert limits.CREATION_US == 300_000
    assert limits.CREATIONS_MIN_PER_S == 0.001
    assert limits.DURATION_SAMPLES == 16
    assert (limits.GROWTH_GAIN_MIN, limits.GROWTH_STEP_MIN) == (0.5, 1.25)
    assert limits.GROWTH_PAUSE_US == 10 * SECOND
    assert limits.GROWTH_DOUBLINGS_MAX == 6


def test_what_the_baseline_keeps_to_is_what_the_original_did() -> None:
    assert (limits.MANAGED_FRACTION, limits.BLACKBOX_FRACTION) == (0.9, 0.1)
    assert (limits.ACK_FACTOR, limits.ACK_ADDON_US) == (2, 60 * SECOND)
    assert (limits.ACK_TIMEOUT_MIN_US, limits.SHARD_MIN_MB) == (60 * SECOND, 128)
    assert (limits.HEALTH_RESULTS_MAX, limits.HEALTH_TOLERANCE) == (10, 3)
    assert (limits.HEALTH_SILENCE_US, limits.HEALTH_TEST_INTERVAL_US) == (10 * SECOND, 60 * SECOND)
    assert (limits.PUSH_KEEP_ALIVE_US, limits.PUSH_PAUSE_GRACE_US) == (600 * SECOND, 10 * SECOND)
    assert (limits.PUSH_MEMORY_UNIT_MB, limits.PUSH_PEEK_FACTOR) == (128, 0.5)


def test_what_is_noise_and_what_is_not() -> None:
    assert (limits.SPREAD_RATIO, limits.SPREAD_MIN_PER_S) == (1.5, 500.0)
    assert (limits.SPARE_GAPS, limits.SPARE_IDLE_MAX_US) == (10, SECOND)
    assert (limits.LOOP_BUSY, limits.LOOP_CALM) == (0.3, 0.15)
    assert limits.HEALTH_TEST_RETRY_US == SECOND
