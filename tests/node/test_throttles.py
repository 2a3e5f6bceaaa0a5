"""How much a namespace may ask for, and what one that asks for too much is told."""

from __future__ import annotations

import pytest
from node.house import ECHO, WAITS, House, open_house
from node.rest import open_whole_server
from waiting import Gate, until

from acs_node import clock
from acs_node.entities import Identity, NamespaceLimits, SystemLimits
from acs_node.errors import ApiError
from acs_node.throttles import Throttle, Throttles

MINUTE = 60_000


def refused(throttle: Throttle, now_ms: int) -> tuple[int, str, dict[str, str]]:
    with pytest.raises(ApiError) as caught:
        throttle.admit(now_ms)
    return caught.value.status, caught.value.text, dict(caught.value.headers)


def test_so_many_in_a_minute_of_the_calendar_and_what_is_refused_counts() -> None:
    throttle = Throttle(SystemLimits(invocations_per_minute=2))
    throttle.admit(MINUTE)
    throttle.admit(MINUTE + 1)
    text = "Too many requests in the last minute (count: {}, allowed: 2)."
    assert refused(throttle, MINUTE + 500) == (429, text.format(3), {"Retry-After": "60"})
    assert refused(throttle, 2 * MINUTE - 1) == (429, text.format(4), {"Retry-After": "1"})
    throttle.admit(2 * MINUTE)


def test_so_many_at_once() -> None:
    throttle = Throttle(SystemLimits(concurrent_invocations=1))
    throttle.admit(0)
    throttle.in_flight.add("a")
    text = "Too many concurrent requests in flight (count: 1, allowed: 1)."
    assert refused(throttle, 0) == (429, text, {"Retry-After": "1"})
    throttle.in_flight.discard("a")
    throttle.admit(0)


def test_zero_is_none_at_all() -> None:
    assert refused(Throttle(SystemLimits(invocations_per_minute=0)), 0)[0] == 429
    assert refused(Throttle(SystemLimits(concurrent_invocations=0)), 0)[0] == 429


def test_fires_are_counted_apart() -> None:
    throttle = Throttle(SystemLimits(fires_per_minute=1, invocations_per_minute=1))
    throttle.admit(0)
    throttle.admit_fire(0)
    with pytest.raises(ApiError, match="count: 2, allowed: 1"):
        throttle.admit_fire(1)


def test_who_has_no_limit_has_no_throttle_and_changed_limits_keep_the_count() -> None:
    throttles = Throttles(SystemLimits())
    free = Identity("guest", "guest", "u", NamespaceLimits())
    assert throttles.of(free) is None
    bound = Identity("guest", "guest", "u", NamespaceLimits(concurrent_invocations=1))
    throttle = throttles.of(bound)
    assert throttle is not None
    throttle.in_flight.add("a")
    more = Identity("guest", "guest", "u", NamespaceLimits(concurrent_invocations=2))
    assert throttles.of(more) is throttle
    throttle.admit(0)
    assert throttles.of(free) is None
    assert Throttles(SystemLimits(fires_per_minute=1)).of(free) is not None


async def limit(house: House, **limits: int) -> None:
    await house.entities.set_limits("guest", NamespaceLimits(**limits))
    identity = await house.entities.namespace("guest")
    assert identity is not None
    house.identity = identity


async def test_what_ended_makes_room_and_new_limits_hold_at_once() -> None:
    async with open_house() as house:
        await house.put("wait", WAITS)
        await house.put("act")
        assert (await house.invoke("act")).status == 200
        await limit(house, concurrent_invocations=1)
        go = Gate(house.folder / "go")
        waiting = house.start("wait", {"go": str(go)})
        await until(lambda: house.controller.counts()["pending"] == 1, "its admission")
        refused = await house.invoke("act")
        assert refused.status == 429
        assert refused.body == "Too many concurrent requests in flight (count: 1, allowed: 1)."
        assert refused.headers == {"Retry-After": "1"}
        go.open()
        await waiting.answered
        assert (await house.invoke("act")).status == 200
        await limit(house)
        assert (await house.invoke("act")).status == 200


async def test_a_composition_counts_once_and_its_parts_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "wall_ms", lambda: 1_700_000_040_000)  # no minute ends meanwhile
    async with open_house() as house:
        await house.put("act")
        body = {"exec": {"kind": "sequence", "components": ["/guest/act", "/guest/act"]}}
        await house.entities.put_action("guest", "s", body, overwrite=True)
        await limit(house, invocations_per_minute=2, concurrent_invocations=1)
        assert [(await house.invoke("s")).status for _ in range(3)] == [200, 200, 429]


async def test_fires_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall_ms", lambda: 1_700_000_040_000)
    async with open_whole_server() as (server, house):
        base = "/api/v1/namespaces/_"
        body = {"exec": {"kind": "python:3", "code": ECHO}}
        await server.call("PUT", f"{base}/actions/act", json=body)
        await server.call("PUT", f"{base}/triggers/t", json={})
        rule = {"trigger": "/_/t", "action": "/_/act"}
        await server.call("PUT", f"{base}/rules/r", json=rule)
        await house.entities.set_limits("guest", NamespaceLimits(fires_per_minute=1))
        assert (await server.call("POST", f"{base}/triggers/t", json={})).status_code == 202
        response = await server.call("POST", f"{base}/triggers/t", json={})
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")
        await house.controller.drained()
