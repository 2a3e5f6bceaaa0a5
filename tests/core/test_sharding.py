"""The push balancer and its supervision: the vectors of the original, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acs_core.semaphores import NestedSemaphore
from acs_core.sharding import (
    Acknowledgement,
    Balancer,
    InvokerStatus,
    PushedAction,
    ShardedInvoker,
    Shards,
    ack_timeout_us,
    generate_hash,
    pairwise_coprimes,
    partition,
    schedule,
)
from acs_core.sharding_supervision import InvocationResult, SupervisedInvoker, Supervision

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "sharding.json").read_text()
)
STATUS = {
    "up": InvokerStatus.UP,
    "unhealthy": InvokerStatus.UNHEALTHY,
    "unresponsive": InvokerStatus.UNRESPONSIVE,
    "down": InvokerStatus.DOWN,
}
RESULTS = {
    "S": InvocationResult.SUCCESS,
    "E": InvocationResult.SYSTEM_ERROR,
    "T": InvocationResult.TIMEOUT,
}
SECOND = 1_000_000


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(each, id=each.get("name", str(place))) for place, each in enumerate(vectors)
    ]


def invokers_of(listed: list[dict[str, Any]]) -> list[ShardedInvoker]:
    return [
        ShardedInvoker(each["id"], STATUS[each["status"]], each.get("userMemory", 0))
        for each in listed
    ]


# --- hash, steps, parts ------------------------------------------------------------------------


@pytest.mark.parametrize("vector", named(VECTORS["pairwiseCoprimeNumbersUntil"]))
def test_steps(vector: dict[str, Any]) -> None:
    assert pairwise_coprimes(vector["x"]) == vector["expect"]


@pytest.mark.parametrize("vector", named(VECTORS["generateHash"]))
def test_hash_home_and_step(vector: dict[str, Any]) -> None:
    number = generate_hash(vector["namespace"], vector["actionFqnNoVersion"])
    assert number == vector["expect"]
    for count, expected in vector["home_step_by_numInvokers"].items():
        steps = pairwise_coprimes(int(count))
        assert [number % int(count), steps[number % len(steps)]] == expected


def test_hash_of_the_smallest_number_is_zero() -> None:
    # The hash of this name is the smallest int32, whose absolute value there is none.
    assert generate_hash("", "polygenelubricants") == 0


def test_hash_of_half_a_surrogate_pair() -> None:
    assert generate_hash("", "\ud83d") == 0xD83D


@pytest.mark.parametrize("vector", named(VECTORS["partition"]))
def test_parts_for_managed_and_blackbox_actions(vector: dict[str, Any]) -> None:
    for count, managed, blackbox in vector["rows_n_managed_blackbox"]:
        got = partition(count, vector["managedFraction"], vector["blackboxFraction"])
        assert got == (managed, blackbox)


# --- one assignment ----------------------------------------------------------------------------


@pytest.mark.parametrize("vector", named(VECTORS["schedule"]))
def test_assignments(vector: dict[str, Any]) -> None:
    invokers = invokers_of(vector["invokers"])
    slots = [NestedSemaphore(count) for count in vector["slots"]]
    for step in vector["steps"]:
        expected = step["expect"]
        if step["op"] == "availablePermits":
            assert [each.available_permits for each in slots] == expected
            continue
        results = [
            schedule(
                step["maxConcurrent"],
                step["fqn"],
                invokers,
                slots,
                step["need"],
                step["index"],
                step["step"],
                draw,
            )
            for draw in range(step.get("repeat", 1))
        ]
        if not isinstance(expected, dict):
            assert results == [tuple(expected) if expected is not None else None]
            continue
        chosen = [result for result in results if result is not None]
        assert len(chosen) == expected["repeat"]
        assert all(forced for _, forced in chosen) is expected["allForced"]
        ids = {invoker for invoker, _ in chosen}
        assert set(expected.get("idsSeenContainAll", [])) <= ids <= set(expected["idsWithin"])


def test_two_invokers_are_asked_twice_before_force() -> None:
    asked: list[int] = []

    class Asked(list[ShardedInvoker]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    (vector,) = [each for each in VECTORS["schedule"] if each["name"].startswith("number of pro")]
    step = vector["steps"][0]
    slots = [NestedSemaphore(count) for count in vector["slots"]]
    invokers = Asked(invokers_of(vector["invokers"]))
    schedule(1, "a", invokers, slots, step["need"], step["index"], step["step"], 0)
    assert len(asked) == step["probes"]


def test_nobody_is_up() -> None:
    invokers = [ShardedInvoker(0, InvokerStatus.UNRESPONSIVE, 0)]
    assert schedule(1, "a", invokers, [NestedSemaphore(9)], 1, 0, 1, 0) is None


# --- shards ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", named(VECTORS["state"]))
def test_shards(vector: dict[str, Any]) -> None:
    shards = Shards(vector["managedFraction"], vector["blackboxFraction"])
    for step in vector["steps"]:
        if step["op"] == "updateInvokers":
            shards.update_invokers(invokers_of(step["invokers"]))
        elif step["op"] == "updateCluster":
            shards.update_cluster(step["size"])
        elif step["op"] == "tryAcquire":
            assert shards.slots[step["invoker"]].try_acquire(step["permits"])
        got = {
            "invokers": [each.invoker for each in shards.invokers],
            "managed": [each.invoker for each in shards.managed],
            "blackbox": [each.invoker for each in shards.blackbox],
            "slots": [each.available_permits for each in shards.slots],
            "managedSteps": shards.managed_steps,
            "blackboxSteps": shards.blackbox_steps,
        }
        assert {key: got[key] for key in step["expect"]} == step["expect"]


def test_an_invoker_out_of_its_place() -> None:
    shards = Shards()
    with pytest.raises(ValueError, match=r"invokers\[0\] is invoker 1; it must be 0"):
        shards.update_invokers([ShardedInvoker(1, InvokerStatus.UP, 512)])
    assert shards.invokers == []


def test_a_cluster_of_none_is_one() -> None:
    shards = Shards()
    shards.update_invokers([ShardedInvoker(0, InvokerStatus.UP, 512)])
    shards.update_cluster(-1)
    assert (shards.cluster_size, shards.slots[0].available_permits) == (1, 512)


# --- the balancer ------------------------------------------------------------------------------


def balancer_of(count: int, memory_mb: int = 2000) -> Balancer:
    balancer = Balancer()
    balancer.shards.update_invokers(
        [ShardedInvoker(number, InvokerStatus.UP, memory_mb) for number in range(count)]
    )
    return balancer


@pytest.mark.parametrize("case", VECTORS["publishBatch"]["cases"], ids=lambda case: str(case["n"]))
def test_a_batch_and_its_completions(case: dict[str, Any]) -> None:
    batch = VECTORS["publishBatch"]
    balancer = balancer_of(batch["invokers"], batch["userMemory"])
    name, _, version = batch["fqnKey"].partition("@")
    action = PushedAction(
        batch["namespace"], name, version, batch["actionMemory"], case["concurrency"]
    )
    sent = [balancer.publish(str(number), action, 0, 0) for number in range(case["n"])]
    for expected in case["perInvoker"]:
        slots = balancer.shards.slots[expected["invoker"]]
        state = slots.concurrent_state[action.key]
        assert sent.count(expected["invoker"]) == expected["scheduled"]
        assert state.available_permits == expected["freeConcurrency"]
        assert state.operation_count == expected["counter"]
        assert slots.available_permits == expected["memoryPermits"]
    assert balancer.in_flight() == case["n"]
    for number in range(case["n"]):
        assert balancer.complete(str(number)) is Acknowledgement.REGULAR
    for slots, free_mb in zip(
        balancer.shards.slots, case["afterAllCompleted"]["memoryPermits"], strict=True
    ):
        assert (slots.available_permits, dict(slots.concurrent_state)) == (free_mb, {})
    assert balancer.next_deadline_us() is None


@pytest.mark.parametrize("vector", named(VECTORS["completionAckTimeoutMs"]))
def test_how_long_a_completion_is_waited_for(vector: dict[str, Any]) -> None:
    assert vector["stdMs"] == 60_000
    timeout_us = ack_timeout_us(
        vector["actionTimeLimitMs"] * 1000, vector["factor"], vector["addonMs"] * 1000
    )
    assert timeout_us == vector["expect"] * 1000


@pytest.mark.parametrize("vector", named(VECTORS["processCompletion"]))
def test_completions(vector: dict[str, Any]) -> None:
    balancer = balancer_of(1)
    if vector["entry"]:
        balancer.publish("x", PushedAction("n", "n/a"), 0, 0)
        taken_mb = balancer.shards.slots[0].available_permits
    else:
        taken_mb = 0
    kind = balancer.complete(
        "x", forced=vector["forced"], health=vector.get("tid") == "invokerHealth"
    )
    assert kind.value == vector["expect"]["counter"]
    assert balancer.acknowledgements[kind] == 1
    released = vector["entry"] and balancer.shards.slots[0].available_permits > taken_mb
    assert released is vector["expect"]["slotReleased"]
    assert balancer.next_deadline_us() is None


def test_a_late_completion_of_what_was_given_up() -> None:
    balancer = balancer_of(1)
    balancer.publish("x", PushedAction("n", "n/a"), 5, 0)
    balancer.publish("y", PushedAction("n", "n/a", timeout_us=61 * SECOND), 5, 0)
    assert balancer.next_deadline_us() == 180 * SECOND + 5
    assert balancer.give_up(180 * SECOND + 4) == []
    assert balancer.give_up(180 * SECOND + 5) == [("x", 0)]
    balancer.check()
    assert balancer.complete("x") is Acknowledgement.REGULAR_AFTER_FORCED
    assert balancer.shards.slots[0].available_permits == 2000 - 256


def test_what_is_due_longest_is_given_up_first() -> None:
    balancer = balancer_of(1)
    long = PushedAction("n", "n/a", timeout_us=90 * SECOND)
    balancer.publish("long", long, 0, 0)
    balancer.publish("b", PushedAction("n", "n/a"), 60 * SECOND, 0)
    balancer.publish("a", PushedAction("n", "n/a"), 60 * SECOND, 0)
    balancer.publish("earlier", PushedAction("n", "n/a"), 59 * SECOND, 0)  # the clock went back
    balancer.publish("later", long, 60 * SECOND, 0)
    assert balancer.next_deadline_us() == 239 * SECOND
    given_up = balancer.give_up(240 * SECOND)
    assert [name for name, _ in given_up] == ["earlier", "a", "b", "long"]
    assert balancer.next_deadline_us() == 300 * SECOND
    assert balancer.give_up(300 * SECOND - 1) == []
    balancer.check()


def test_force_is_counted_by_kind_of_action() -> None:
    balancer = balancer_of(1, 128)
    assert balancer.publish("x", PushedAction("n", "n/a", blackbox=True), 0, 7) == 0
    assert balancer.publish("y", PushedAction("n", "n/a"), 0, 7) == 0
    assert balancer.overloads == [1, 1]


def test_the_same_activation_twice() -> None:
    balancer = balancer_of(1)
    balancer.publish("x", PushedAction("n", "n/a"), 0, 0)
    with pytest.raises(ValueError, match="activation x is under way already"):
        balancer.publish("x", PushedAction("n", "n/a"), 0, 0)
    assert balancer.in_flight() == 1


def test_no_invoker() -> None:
    balancer = Balancer()
    assert balancer.publish("x", PushedAction("n", "n/a"), 0, 0) is None
    balancer.shards.update_invokers([ShardedInvoker(0, InvokerStatus.DOWN, 512)])
    assert balancer.publish("x", PushedAction("n", "n/a"), 0, 0) is None
    assert balancer.in_flight() == 0


def test_completions_of_before_the_cluster_changed_its_size() -> None:
    balancer = balancer_of(1)
    balancer.publish("x", PushedAction("n", "n/a", concurrency=5), 0, 0)
    balancer.publish("y", PushedAction("n", "n/a"), 0, 0)
    balancer.shards.update_cluster(2)
    balancer.complete("x")  # its key is unknown now
    assert balancer.shards.slots[0].available_permits == 1000
    balancer.complete("y")  # the quirk: more than there is
    assert balancer.shards.slots[0].available_permits == 1256


def test_a_completion_of_an_invoker_without_slots() -> None:
    balancer = balancer_of(1)
    balancer.publish("x", PushedAction("n", "n/a"), 0, 0)
    balancer.shards.update_invokers([])
    balancer.shards.update_cluster(2)
    assert balancer.complete("x") is Acknowledgement.REGULAR


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"namespace": ""}, "namespace is ''; it must be a string of 1..1024 characters"),
        ({"memory_mb": 0}, "memory_mb is 0; it must be an integer in 1..2147483647"),
        ({"concurrency": 1001}, "concurrency is 1001; it must be an integer in 1..1000"),
        ({"timeout_us": 0}, "timeout_us is 0; it must be an integer in 1.."),
    ],
)
def test_what_is_no_action(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PushedAction(**({"namespace": "n", "name": "n/a"} | fields))


# --- supervision -------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", named(VECTORS["invokerFsm"]["cases"]))
def test_health_of_an_invoker(vector: dict[str, Any]) -> None:
    assert vector["start"] == "unhealthy"
    now_us = 0
    supervised = SupervisedInvoker(now_us)
    tests = 1  # of its registration
    for event, expected in zip(vector["events"], vector["stateAfterEach"], strict=True):
        if event == "silence10s":
            now_us += 10 * SECOND
            tests += supervised.time_reached(now_us)
        elif event == "tick":
            # Pings keep it from being silent until the timer fires.
            for _ in range(60):
                now_us += SECOND
                tests += supervised.pinged(True, now_us)
                tests += supervised.time_reached(now_us)
        elif event.startswith("ping"):
            tests += supervised.pinged(event == "ping", now_us)
        else:
            tests += supervised.completed(RESULTS[event], now_us)
        assert supervised.status == STATUS[expected], event
    assert (supervised.test_due_us >= 0) is vector["timerActiveAtEnd"]
    assert tests == vector["testActivationsSent"]


@pytest.mark.parametrize("vector", named(VECTORS["invokerPool"]))
def test_registration_of_invokers(vector: dict[str, Any]) -> None:
    supervision = Supervision()
    for step in vector["steps"]:
        if "ping" in step:
            ping = step["ping"]
            invoker = ping if isinstance(ping, int) else ping["instance"]
            supervision.register(invoker, 512)
            if step.get("thenChildState") == "up":
                supervision.pinged(invoker, 512, 0)
                supervision.completed(invoker, InvocationResult.SUCCESS, 0)
        elif "transition" in step:
            supervision.pinged(step["transition"][0], 512, 0, enabled=False)
        else:
            sends = supervision.pinged(step["activationRequest"], 512, 0)
            assert sends == step["expectSends"]
            continue
        statuses = [each.status for each in supervision.invokers]
        assert statuses == [STATUS[each] for each in step["expect"]]


def test_invokers_that_fall_silent_and_are_tested() -> None:
    supervision = Supervision()
    assert supervision.next_deadline_us() is None
    assert supervision.pinged(1, 512, 0) == 1
    assert supervision.next_deadline_us() == 10 * SECOND
    assert supervision.time_reached(10 * SECOND) == []
    assert [each.status for each in supervision.invokers] == [InvokerStatus.DOWN] * 2
    assert supervision.next_deadline_us() is None
    assert supervision.pinged(1, 512, 11 * SECOND) == 1
    for second in range(12, 72):
        supervision.pinged(1, 1024, second * SECOND)
    assert supervision.time_reached(71 * SECOND) == [1]
    assert supervision.invokers[1] == ShardedInvoker(1, InvokerStatus.UNHEALTHY, 1024)


def test_a_completion_is_a_sign_of_life() -> None:
    supervision = Supervision()
    supervision.pinged(0, 512, 0)
    supervision.completed(0, InvocationResult.SUCCESS, 6 * SECOND)
    changes = supervision.changes
    supervision.completed(0, InvocationResult.SUCCESS, 7 * SECOND)
    assert supervision.changes == changes, "it was up before"
    assert supervision.next_deadline_us() == 17 * SECOND
    assert supervision.time_reached(16 * SECOND) == []
    assert supervision.invokers[0].status is InvokerStatus.UP


def test_the_next_test_is_a_minute_later() -> None:
    supervised = SupervisedInvoker(0)
    supervised.pinged(True, 60 * SECOND)
    assert supervised.time_reached(60 * SECOND)
    assert supervised.test_due_us == 120 * SECOND
    assert not supervised.time_reached(60 * SECOND)


def test_a_completion_of_an_unknown_invoker() -> None:
    supervision = Supervision()
    assert supervision.completed(3, InvocationResult.SUCCESS, 0) == 0
    assert supervision.invokers == []


def test_an_invoker_whose_number_is_out_of_range() -> None:
    supervision = Supervision()
    with pytest.raises(ValueError, match=r"invoker is 100000; it must be an integer in 0..99999"):
        supervision.pinged(100_000, 512, 0)
    with pytest.raises(ValueError, match="memory_mb is -1"):
        supervision.pinged(0, -1, 0)
    assert supervision.invokers == []
