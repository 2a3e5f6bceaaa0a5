"""The controller: the delivery promise, with real stores, core and sandboxes around it."""

import asyncio
import gc
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from node.house import ECHO, WAITS, House, Recorder, open_house
from waiting import Gate, until

from acs_core.effects import Cause, Reject, Throttle
from acs_core.limits import WAIT_MAX_US
from acs_node import clock, controller, database_engines, patience, route_cache
from acs_node.activations import StoreFailing
from acs_node.controller import Controller
from acs_node.entity_types import Action
from acs_node.errors import ApiError
from acs_node.ids import controller_of
from acs_node.invocations import Invocation
from acs_node.links import Close, Link, Logs, QueueClosed, Result, Submit
from acs_node.sandboxes import SandboxError

UNAVAILABLE = (
    "The server is currently unavailable (because it is overloaded or down for maintenance)."
)


class Ear(Link):
    """A link to a scheduler that does nothing by itself."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def send(self, message: object) -> None:
        self.heard.append(message)

    def submitted(self) -> list[Submit]:
        return [message for message in self.heard if isinstance(message, Submit)]

    def closed(self) -> list[str]:
        return [message.queue for message in self.heard if isinstance(message, Close)]

    def reject(self, house: House, cause: Cause, retry_after_us: int = 0) -> str:
        """Reject what was submitted last and return its id."""
        activation = self.submitted()[-1].activation
        house.controller.receive(Reject(activation, cause, "planted", retry_after_us))
        return activation.activation_id


@asynccontextmanager
async def deaf_house(**how: Any) -> AsyncIterator[tuple[House, Ear]]:
    """A house whose controller speaks to the test instead of the scheduler."""
    async with open_house(**how) as house:
        ear = Ear()
        house.controller.connect(ear)
        await house.put("act")
        yield house, ear


def result_of(activation_id: str, response: bytes = b"{}", *, logs_follow: bool = False) -> Result:
    return Result(activation_id, 0, response, clock.wall_ms(), 10, 0, 20, False, logs_follow)


def store_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(*arguments: object) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreFailing("planted"))
        return future

    monkeypatch.setattr(house.activations, "accept", accept)


# --- answers and records -------------------------------------------------------------------------


async def test_a_blocking_invocation_is_answered_with_its_record() -> None:
    async with open_house() as house:
        await house.put("act", "def main(args):\n    print('hi')\n    return args\n")
        answer = await house.invoke("act", {"a": 1}, result=False)
        assert answer.status == 200
        assert answer.body["logs"] == []
        assert answer.body["response"] == {
            "status": "success", "success": True, "result": {"a": 1}, "size": 7,
        }  # fmt: skip
        assert answer.body["activationId"] == answer.activation_id
        assert answer.activation_id
        stored = await house.document(answer.activation_id)
        assert [line.partition(" ")[2] for line in stored.pop("logs")] == ["stdout: hi"]
        answer.body.pop("logs")
        assert stored == answer.body
        notes = {note["key"]: note["value"] for note in stored["annotations"]}
        assert notes["path"] == "guest/act"
        assert notes["kind"] == "python:3"
        assert notes["timeout"] is False
        assert notes["initTime"] >= 0
        assert notes["waitTime"] >= 0
        warm = await house.invoke("act", {}, result=False)
        keys = [note["key"] for note in warm.body["annotations"]]
        assert "initTime" not in keys
        assert stored["duration"] == stored["end"] - stored["start"]


@pytest.mark.parametrize(
    ("code", "status", "body"),
    [
        ("return {'a': 1}", 200, {"a": 1}),
        ("return [1, 2]", 200, [1, 2]),
        ("return {'error': 'mine'}", 502, {"error": "mine"}),
        ("return 'text'", 502, {"error": "The action did not return a dictionary or array."}),
    ],
)
async def test_the_status_says_how_it_ended(code: str, status: int, body: Any) -> None:
    async with open_house() as house:
        await house.put("act", f"def main(args):\n    {code}\n")
        answer = await house.invoke("act", {})
        assert (answer.status, answer.body) == (status, body)
        whole = await house.invoke("act", {}, result=False)
        assert whole.status == status
        if isinstance(body, list):
            assert whole.body == body, "an array is sent bare"
        else:
            assert whole.body["response"]["result"] == body


async def test_an_array_with_space_before_it_is_bare_as_well() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {}, result=False)
        await until(ear.submitted, "the submission")
        activation_id = ear.submitted()[0].activation.activation_id
        house.controller.receive(result_of(activation_id, b"\n [1]"))
        assert caller.answers[0].body == [1]


async def test_a_non_blocking_invocation_is_accepted_before_it_is_answered() -> None:
    async with open_house() as house:
        await house.put("act")
        answer = await house.invoke("act", {"a": 1}, blocking=False)
        assert answer.status == 202
        assert answer.activation_id
        assert answer.body == {"activationId": answer.activation_id}
        stored = await house.document(answer.activation_id)
        assert stored["response"]["result"] == {"a": 1}


async def test_a_caller_who_waited_long_enough_gets_the_id_and_later_the_record() -> None:
    async with open_house() as house:
        await house.put("act", WAITS)
        go = Gate(house.folder / "go")
        answer = await house.invoke("act", {"go": str(go)}, timeout_ms=20)
        assert answer.status == 202
        assert answer.activation_id
        assert await house.activations.get("guest", answer.activation_id) is None
        go.open()
        assert (await house.document(answer.activation_id))["response"]["success"]


async def test_the_usual_wait_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BLOCKING_MS_MAX", 20)
    monkeypatch.setattr(patience, "WAIT_TICK_S", 0.005)
    async with deaf_house() as (house, ear):
        callers = [house.start("act", {}, timeout_ms=20) for _ in range(3)]
        for caller in callers:
            assert (await asyncio.wait_for(caller.answered, 5)).status == 202
        assert house.controller._patience.waiting == {}
        for submitted in ear.submitted():
            house.controller.receive(result_of(submitted.activation.activation_id))
            await house.record(submitted.activation.activation_id)
        assert all(len(caller.answers) == 1 for caller in callers)


async def test_an_end_that_is_told_twice_counts_once() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await until(ear.submitted, "the submission")
        activation_id = ear.submitted()[0].activation.activation_id
        house.controller.receive(result_of(activation_id, b'{"n":1}'))
        house.controller.receive(result_of(activation_id, b'{"n":2}', logs_follow=True))
        house.controller.receive(Logs([(activation_id, ["late"])]))
        ear.reject(house, Cause.UNKNOWN)
        assert [answer.body for answer in caller.answers] == [{"n": 1}]
        stored = await house.document(activation_id)
        assert (stored["response"]["result"], stored["logs"]) == ({"n": 1}, [])


async def test_a_caller_that_fails_costs_no_record() -> None:
    class Broken(Recorder):
        def reply(self, *arguments: Any, **more: Any) -> None:
            raise RecursionError("planted")

    async with open_house() as house:
        await house.put("act")
        house.start("act", {}, caller=Broken())
        await until(lambda: house.controller._pending, "the activation")
        (activation_id,) = house.controller._pending
        assert (await house.document(activation_id))["response"]["success"]
        assert (await house.invoke("act", {"n": 2})).body == {"n": 2}


async def test_messages_that_are_not_for_a_controller_are_refused() -> None:
    async with deaf_house() as (house, _):
        with pytest.raises(TypeError, match="Close is no message for a controller"):
            house.controller.receive(Close("q", "why"))


# --- arguments -----------------------------------------------------------------------------------


async def test_arguments_lie_over_the_parameters_of_the_action() -> None:
    parameters = [{"key": "a", "value": 1}, {"key": "b", "value": 2}]
    parameters.append({"key": "HIDDEN", "value": 3, "init": True})
    async with open_house() as house:
        await house.put("act", parameters=parameters)
        assert (await house.invoke("act", {"b": 3, "c": 4})).body == {"a": 1, "b": 3, "c": 4}
        assert (await house.invoke("act")).body == {"a": 1, "b": 2}
        await house.put("plain")
        assert (await house.invoke("plain")).body == {}


@pytest.mark.parametrize("init", [False, True])
async def test_final_parameters_cannot_be_overridden(init: bool) -> None:
    parameters = [{"key": "a", "value": 1, "init": init}, {"key": "open", "value": None}]
    if init:
        parameters.pop()
    notes = [{"key": "final", "value": True}]
    async with open_house() as house:
        await house.put("act", parameters=parameters, annotations=notes)
        refused = await house.invoke("act", {"a": 2})
        assert refused.status == 400
        assert refused.body == (
            "Request defines parameters that are not allowed (e.g., reserved properties)."
        )
        assert (await house.invoke("act", {"open": 1, "new": 2})).status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b'"a"', b"null", b"\xff", b'{"a":NaN}', b" "])
async def test_a_body_that_is_no_object_is_malformed(body: bytes) -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await until(ear.submitted, "the route")
        invocation = Invocation("guest", "act", True)
        with pytest.raises(ApiError) as caught:
            house.controller.invoke(house.identity, invocation, body, "t", caller)
        assert caught.value.status == 400
        assert caught.value.text.startswith("The request content was malformed:\n")


async def test_arguments_too_deep_to_be_merged_are_malformed() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"d": deep}
    async with open_house() as house:
        await house.put("act", parameters=[{"key": "a", "value": 1}])
        answer = await house.invoke("act", deep)
        assert answer.status == 400
        assert answer.body.startswith("The request content was malformed:\n")


# --- refusals ------------------------------------------------------------------------------------


async def test_an_absent_action_and_a_foreign_namespace() -> None:
    async with deaf_house() as (house, ear):
        assert (await house.invoke("absent", {})).status == 404
        caller = Recorder()
        invocation = Invocation("other", "act", True)
        with pytest.raises(ApiError) as caught:
            house.controller.invoke(house.identity, invocation, b"", "t", caller)
        assert caught.value.status == 403
        assert "'other/act'" in caught.value.text
        assert not ear.submitted()


async def test_a_store_without_room_refuses_before_anything_is_done() -> None:
    async with deaf_house(store={"buffer_max": 0}) as (house, ear):
        for blocking in (True, False):
            answer = await house.invoke("act", {}, blocking=blocking)
            assert answer.status == 503
            assert answer.body.startswith(f"{UNAVAILABLE} 0 activation records wait")
            assert "(allowed: 0)" in answer.body
            assert answer.headers == {"Retry-After": "1"}
        assert not ear.heard
        assert house.controller.counts()["pending"] == 0


async def test_an_accept_that_cannot_be_written_refuses_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with deaf_house() as (house, ear):
        store_fails(house, monkeypatch)
        answer = await house.invoke("act", {}, blocking=False)
        assert answer.status == 503
        assert answer.body.startswith(f"{UNAVAILABLE} The database does not take")
        assert "planted" not in answer.body, "the cause is for the log"
        assert answer.headers == {"Retry-After": "1"}
        assert not ear.heard
        assert house.controller.counts()["pending"] == 0
        monkeypatch.undo()
        assert (await house.invoke("act", {}, blocking=False)).status == 202


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a database that another process has locked fail at once."""
    monkeypatch.setattr(database_engines, "BUSY_TIMEOUT_S", 0.01)


@contextmanager
def locked(house: House) -> Iterator[None]:
    """Hold the database as a backup would."""
    blocker = sqlite3.connect(house.folder / "acs.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    yield
    blocker.close()


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_cannot_be_written_accepts_nothing_and_loses_nothing() -> None:
    async with open_house(store={"buffer_max": 5}) as house:
        await house.put("act")
        await house.invoke("act", {})
        answered = []
        with locked(house):
            refused = await house.invoke("act", {}, blocking=False)
            assert refused.status == 503
            assert refused.body.startswith(UNAVAILABLE)
            assert "wait for the database (allowed: 5)" in refused.body
            assert refused.headers == {"Retry-After": "1"}
            assert house.scheduler.scheduler.counts()["accepted"] == 1, "it was not run"
            while house.activations.has_room():
                answered.append(await house.invoke("act", {"n": 1}))
                await until(lambda: not house.sizes()["unlogged"], "its logs")
            assert [answer.status for answer in answered] == [200] * len(answered)
            refused = await house.invoke("act", {})
            assert refused.status == 503
            held = house.activations.backlog()
            assert "5 activation records wait for the database (allowed: 5)" in held
            assert refused.body == f"{UNAVAILABLE} {held}. It goes on when they are written."
            assert refused.headers == {"Retry-After": "1"}
        for answer in answered:
            assert answer.activation_id
            assert (await house.document(answer.activation_id))["response"]["success"]
        await house.activations.flush()
        assert await house.activations.count("guest") == 1 + len(answered) >= 5
        assert (await house.invoke("act", {}, blocking=False)).status == 202


async def test_a_late_accept_that_cannot_be_written_tells_the_caller_and_the_record_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with deaf_house() as (house, ear):
        store_fails(house, monkeypatch)
        caller = house.start("act", {}, timeout_ms=1)
        assert (await asyncio.wait_for(caller.answered, 5)).status == 503
        activation_id = ear.submitted()[0].activation.activation_id
        house.controller.receive(result_of(activation_id))
        await house.record(activation_id)


async def test_a_store_that_cannot_be_read_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> Action:
        raise OSError("planted")

    async with deaf_house() as (house, _):
        monkeypatch.setattr(house.entities, "get", broken)
        answer = await house.invoke("uncached", {})
        assert (answer.status, answer.body) == (500, "There was an internal server error.")


async def test_a_full_queue_is_too_many_requests_with_a_time_to_come_back() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await until(ear.submitted, "the submission")
        activation_id = ear.reject(house, Cause.QUEUE_FULL, 2_500_000)
        (answer,) = caller.answers
        assert (answer.status, answer.headers) == (429, {"Retry-After": "3"})
        assert "planted" in answer.body
        await house.activations.flush()
        assert await house.activations.get("guest", activation_id) is None


@pytest.mark.parametrize("accepted_by", ["202 at once", "202 after a wait"])
async def test_a_full_queue_ends_what_was_accepted_in_a_record(accepted_by: str) -> None:
    async with deaf_house() as (house, ear):
        if accepted_by == "202 at once":
            await house.invoke("act", {}, blocking=False)
            activation_id = ear.reject(house, Cause.QUEUE_FULL)
        else:
            caller = house.start("act", {}, timeout_ms=1)
            await until(ear.submitted, "the submission")
            await until(lambda: house.controller._pending and all(
                p.caller is None for p in house.controller._pending.values()
            ), "the end of the wait")  # fmt: skip
            activation_id = ear.reject(house, Cause.QUEUE_FULL)
            assert (await asyncio.wait_for(caller.answered, 5)).status == 202
        stored = await house.document(activation_id)
        assert stored["response"]["status"] == "whisk internal error"
        assert stored["response"]["result"] == {"error": "planted"}


@pytest.mark.parametrize(
    ("cause", "status"),
    [(Cause.EXPIRED, 500), (Cause.CREATION_FAILED, 500), (Cause.UNKNOWN, 500),
     (Cause.CANCELLED, 502), (Cause.UNFIT, 502)],
)  # fmt: skip
async def test_what_is_rejected_otherwise_has_a_record_that_says_why(
    cause: Cause, status: int
) -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await until(ear.submitted, "the submission")
        activation_id = ear.reject(house, cause)
        assert [(a.status, a.body) for a in caller.answers] == [(status, {"error": "planted"})]
        assert (await house.document(activation_id))["response"]["result"] == {"error": "planted"}


async def test_a_throttled_queue_refuses_until_the_throttle_is_lifted() -> None:
    async with deaf_house() as (house, ear):
        house.start("act", {})
        await until(ear.submitted, "the submission")
        queue = ear.submitted()[0].spec.queue
        house.controller.receive(Throttle(queue, True, "10000 activations wait"))
        answer = await house.invoke("act", {})
        assert answer.status == 429
        assert "10000 activations wait" in answer.body
        house.controller.receive(Throttle(queue, False, ""))
        house.start("act", {})
        assert len(ear.submitted()) == 2
        house.controller.receive(Throttle(queue, True, "again"))
        house.controller.receive(QueueClosed(queue))
        house.start("act", {})
        assert len(ear.submitted()) == 3


async def test_a_namespace_without_containers_is_refused() -> None:
    async with open_house(containers_max=0) as house:
        await house.put("act")
        answer = await house.invoke("act", {})
        assert answer.status == 429
        assert "allowed: 0" in answer.body


# --- updates -------------------------------------------------------------------------------------

VERSION = "def main(args):\n    return {{'version': {}}}\n"


async def test_after_an_update_the_new_code_is_used_and_the_old_queue_goes() -> None:
    async with open_house() as house:
        for version in range(1, 6):
            await house.put("act", VERSION.format(version))
            assert (await house.invoke("act", {})).body == {"version": version}
        await until(lambda: house.sizes()["core_queues"] == 1, "the end of the old queues")
        assert house.sizes()["open_queues"] == 1
        house.check()


async def test_work_that_was_accepted_before_an_update_still_ends() -> None:
    async with open_house(containers_max=1) as house:
        await house.put("act", WAITS)
        go = Gate(house.folder / "go")
        running = [house.start("act", {"go": str(go)}) for _ in range(3)]
        await until(lambda: house.scheduler.scheduler.counts()["delivered"], "the first run")
        accepted = [house.start("act", {"go": str(go)}, blocking=False) for _ in range(5)]
        await house.put("act", VERSION.format(2))
        new = house.start("act", {})
        go.open()
        for caller in running:
            assert (await asyncio.wait_for(caller.answered, 5)).status == 200
        for caller in accepted:
            answer = await asyncio.wait_for(caller.answered, 5)
            assert answer.status == 202
            assert answer.activation_id
            assert (await house.document(answer.activation_id))["response"]["success"]
        assert (await asyncio.wait_for(new.answered, 5)).body == {"version": 2}


async def test_work_whose_accept_is_written_while_the_action_is_deleted_still_runs() -> None:
    async with open_house() as house:
        await house.put("act")
        await house.invoke("act", {})
        write = asyncio.ensure_future(house.entities.delete_action("guest", "act"))
        accepted = []
        while not write.done():
            accepted.append(house.start("act", {"n": 1}, blocking=False))
            await asyncio.sleep(0)
        await write
        assert (await house.invoke("act", {})).status == 404
        ends = []
        for caller in accepted:
            answer = await asyncio.wait_for(caller.answered, 5)
            if answer.status == 202:
                assert answer.activation_id
                ends.append((await house.document(answer.activation_id))["response"])
        assert ends
        assert all(end["success"] for end in ends), ends


async def test_work_whose_queue_closes_while_its_accept_is_written_opens_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house(
        pool={"keep_alive_us": 1_000},
        scheduler={"idle_grace_us": 1_000, "stop_grace_us": 1_000, "decision_interval_us": 1_000},
    ) as house:
        await house.put("act")
        await house.invoke("act", {})
        written = asyncio.Event()
        accept = house.activations.accept

        async def slow(*arguments: Any) -> None:
            await accept(*arguments)
            await written.wait()

        monkeypatch.setattr(house.activations, "accept", slow)
        caller = house.start("act", {"n": 1}, blocking=False)
        await until(lambda: house.sizes()["core_queues"] == 0, "the end of the queue")
        assert house.sizes()["open_queues"] == 0
        written.set()
        answer = await asyncio.wait_for(caller.answered, 5)
        assert answer.activation_id
        assert (await house.document(answer.activation_id))["response"]["result"] == {"n": 1}


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_an_action_that_changes_while_it_is_read_is_not_kept(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house:
        await house.put("act", VERSION.format(1))
        read = house.entities.get
        may_return = asyncio.Event()

        async def slow(kind: type[Action], namespace: str, path: str) -> Action:
            action = await read(kind, namespace, path)
            await may_return.wait()
            return action

        house.entities._cache_drop(("guest", "act"))
        with monkeypatch.context() as patch:
            patch.setattr(house.entities, "get", slow)
            caller = house.start("act", {})
            await until(lambda: house.entities.cached(Action, "guest", "act"), "the reading")
            if change == "update":
                await house.put("act", VERSION.format(2))
            else:
                await house.entities.delete_action("guest", "act")
            may_return.set()
            first = await asyncio.wait_for(caller.answered, 5)
        if change == "update":
            assert first.body == {"version": 2}
            assert (await house.invoke("act", {})).body == {"version": 2}
        else:
            assert (await house.invoke("act", {})).status == 404


async def test_floors_and_wait_targets_of_annotations_reach_their_queues() -> None:
    async with deaf_house() as (house, ear):
        notes = [
            {"key": "acs-containers-min", "value": 2},
            {"key": "acs-wait-target", "value": 0.5},
        ]
        await house.put("kept", annotations=notes)
        for name in ("act", "kept"):
            house.start(name, {})
        await until(lambda: len(ear.submitted()) == 2, "both submissions")
        specs = [submit.spec for submit in ear.submitted()]
        wishes = {spec.action: (spec.containers_min, spec.wait_target_us) for spec in specs}
        assert wishes == {"guest/act": (0, None), "guest/kept": (2, 500)}


async def test_images_of_users_may_be_waited_for_longer() -> None:
    async with deaf_house() as (house, ear):
        await house.put("own", exec={"kind": "blackbox", "image": "someone/image"})
        for name in ("act", "own"):
            house.start(name, {})
        await until(lambda: len(ear.submitted()) == 2, "both submissions")
        bounds = {submit.spec.action: submit.spec.wait_max_us for submit in ear.submitted()}
        assert bounds == {"guest/act": None, "guest/own": 300_000_000}
        for pending in house.controller._pending.values():
            wait_us = 300_000_000 if pending.route.spec.wait_max_us else 60_000_000
            assert pending.route.longest_us == wait_us + 2 * pending.route.spec.timeout_us


async def test_a_change_closes_the_queues_of_its_action_alone() -> None:
    async with deaf_house() as (house, ear):
        await house.put("other")
        for name in ("act", "other"):
            house.start(name, {})
        await until(lambda: len(ear.submitted()) == 2, "both submissions")
        old = next(s.spec.queue for s in ear.submitted() if s.spec.action == "guest/act")
        await house.put("act", VERSION.format(2))
        await until(ear.closed, "the close")
        house.start("act", {})
        await house.put("act", VERSION.format(3))
        await until(lambda: len(ear.closed()) == 3, "the next closes")
        newer = ear.submitted()[2].spec.queue
        assert ear.closed() == [old, old, newer]


# --- what goes wrong -----------------------------------------------------------------------------


async def test_a_sandbox_that_cannot_be_started_is_named_and_work_goes_on_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house(scheduler={"wait_max_us": 300_000, "retry_min_us": 10_000}) as house:
        await house.put("act")
        engine = house.invoker._engine
        engine._python = "/nonexistent/python"  # type: ignore[attr-defined]
        answer = await house.invoke("act", {})
        assert answer.status == 500
        assert "/nonexistent/python" in answer.body["error"]
        assert answer.activation_id
        stored = await house.document(answer.activation_id)
        assert "/nonexistent/python" in stored["response"]["result"]["error"]
        engine._python = None  # type: ignore[attr-defined]
        assert (await house.invoke("act", {"n": 2})).body == {"n": 2}
        house.check()


async def test_a_sandbox_that_can_never_be_started_fails_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house() as house:
        await house.put("act")

        async def start(spec: object) -> Any:
            raise SandboxError("the image is missing", final=True)

        monkeypatch.setattr(house.invoker._engine, "start", start)
        answer = await house.invoke("act", {})
        assert (answer.status, answer.body) == (500, {"error": "the image is missing"})
        assert house.sizes()["reserved"] == 0


async def test_what_nobody_ends_becomes_unknown_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await house.put("short", limits={"timeout": 100})
        await house.invoke("short", {}, blocking=False)
        await until(lambda: len(ear.submitted()) == 2, "both submissions")
        by_action = {s.spec.action: s for s in ear.submitted()}
        now_us = clock.now_us()
        margin_us = WAIT_MAX_US + 2 * 100_000 + controller.OVERDUE_MARGIN_US
        monkeypatch.setattr(clock, "now_us", lambda: now_us + WAIT_MAX_US + 1_000)
        house.controller.sweep()
        assert house.controller.counts()["pending"] == 2
        monkeypatch.setattr(clock, "now_us", lambda: now_us + margin_us)
        house.controller.sweep()
        short = by_action["guest/short"].activation.activation_id
        assert list(house.controller._pending) == [by_action["guest/act"].activation.activation_id]
        stored = await house.document(short)
        assert stored["response"]["status"] == "whisk internal error"
        assert "nobody reported its end in time" in stored["response"]["result"]["error"]
        monkeypatch.setattr(clock, "now_us", lambda: now_us + 300_000_000)
        house.controller.sweep()
        assert caller.answers[0].status == 500
        house.controller.receive(result_of(short))
        assert house.controller.counts() == {"pending": 0, "unlogged": 0}


async def test_a_record_whose_logs_do_not_come_is_written_without_them() -> None:
    async with deaf_house() as (house, ear):
        house.start("act", {})
        await until(ear.submitted, "the submission")
        activation_id = ear.submitted()[0].activation.activation_id
        house.controller.receive(result_of(activation_id, logs_follow=True))
        waiting = asyncio.ensure_future(house.controller.settled(activation_id))
        house.controller.sweep()
        assert house.controller.counts()["unlogged"] == 1, "it had no time yet"
        house.controller.sweep()
        assert house.controller.counts()["unlogged"] == 0
        await asyncio.wait_for(waiting, 5)
        assert (await house.document(activation_id))["logs"] == []
        house.controller.receive(Logs([(activation_id, ["too late"])]))


async def test_a_result_of_what_another_controller_accepted_completes_its_record() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {}, blocking=False)
        await until(ear.submitted, "the submission")
        activation_id = ear.submitted()[0].activation.activation_id
        assert (await asyncio.wait_for(caller.answered, 5)).status == 202
        house.controller._pending.clear()  # as after a start anew
        await house.activations.flush()
        assert await house.activations.sweep(clock.wall_ms()) == 1
        unknown = await house.document(activation_id)
        assert "not known whether" in unknown["response"]["result"]["error"]
        house.controller.receive(result_of(activation_id))
        await house.controller.drained()
        await house.activations.flush()
        known = await house.document(activation_id)
        assert known["response"]["success"]
        assert {n["key"]: n["value"] for n in known["annotations"]}["timeout"] is False
        assert known["annotations"][:-1] == unknown["annotations"][:-1]
        record = await house.record(activation_id)
        assert json.loads(record.response()) == known["response"]
        # A second one changes nothing, nor does one that nobody has accepted.
        house.controller.receive(result_of(activation_id, b'{"a":1}'))
        house.controller.receive(result_of("0" * 32))
        await house.controller.drained()
        await house.activations.flush()
        assert await house.document(activation_id) == known


async def test_ids_say_which_of_several_controllers_made_them() -> None:
    async with open_house() as house:
        for number in (0, 0xABC, 4095):
            made = Controller(house.entities, house.activations, 1, number)
            ids = {made._next_id(clock.wall_ms()) for _ in range(300)}
            assert {controller_of(id_) for id_ in ids} == {number}
            assert len(ids) == 300
            made.close()
    assert controller_of("x" * 32) == -1
    assert controller_of("0" * 31) == -1


async def test_a_reader_that_goes_away_leaves_nothing() -> None:
    async with deaf_house() as (house, ear):
        house.start("act", {})
        await until(ear.submitted, "the submission")
        activation_id = ear.submitted()[0].activation.activation_id
        house.controller.receive(result_of(activation_id, logs_follow=True))
        readers = [asyncio.ensure_future(house.controller.settled(activation_id)) for _ in "ab"]
        await until(lambda: house.controller._unlogged.settling, "the readers")
        readers[0].cancel()
        house.controller.receive(Logs([(activation_id, ["line"])]))
        await asyncio.wait(readers)
        assert house.controller._unlogged.settling == {}
        assert (await house.document(activation_id))["logs"] == ["line"]


async def test_close_records_what_is_left() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        accepted = await house.invoke("act", {}, blocking=False)
        house.start("act", {})
        unlogged = ear.submitted()[-1].activation.activation_id
        house.controller.receive(result_of(unlogged, logs_follow=True))
        house.controller.close()
        # The house closes it again.
        house.entities.listeners.append(house.controller._on_change)
        house.entities.namespace_listeners.append(house.controller._routes.namespace_changed)
        assert caller.answers[0].status == 500
        assert "server stopped" in caller.answers[0].body["error"]
        assert accepted.activation_id
        assert (await house.document(accepted.activation_id))["response"]["success"] is False
        assert (await house.document(unlogged))["response"]["success"] is True


async def test_draining_refuses_what_is_new_and_waits_for_what_is_old() -> None:
    async with deaf_house() as (house, ear):
        caller = house.start("act", {})
        await until(ear.submitted, "the submission")
        draining = asyncio.ensure_future(house.controller.drained())
        await until(lambda: house.controller._admission.closed, "the stop")
        refused = await house.invoke("act", {})
        assert refused.status == 503
        assert "It is stopping" in refused.body
        assert "1 activations have to end first (new ones allowed: 0)" in refused.body
        assert refused.headers == {"Retry-After": "5"}
        assert not draining.done()
        house.controller.receive(result_of(ear.submitted()[0].activation.activation_id))
        await asyncio.wait_for(draining, 5)
        assert caller.answers[0].status == 200


async def test_who_is_cut_off_refuses_until_it_is_not_and_lifts_nothing_else() -> None:
    async with deaf_house() as (house, ear):
        house.controller.pause_accepting("It is cut off")
        refused = await house.invoke("act", {})
        assert (refused.status, "It is cut off" in refused.body) == (503, True)
        house.controller.accept_again("something else")
        assert (await house.invoke("act", {})).status == 503
        house.controller.accept_again("It is cut off")
        caller = house.start("act", {})
        await until(ear.submitted, "the submission")
        house.controller.receive(result_of(ear.submitted()[0].activation.activation_id))
        assert (await caller.answered).status == 200
        house.controller.disable()
        house.controller.pause_accepting("It is cut off")
        house.controller.accept_again("It is cut off")
        refused = await house.invoke("act", {})
        assert (refused.status, "disabled" in refused.body) == (503, True)


async def test_an_action_that_is_still_read_when_the_stop_begins_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with deaf_house() as (house, ear):
        house.entities._cache_drop(("guest", "act"))
        caller = house.start("act", {})
        await asyncio.wait_for(house.controller.drained(), 5)
        assert (await caller.answered).status == 503
        assert not ear.submitted()


# --- bounds --------------------------------------------------------------------------------------


async def test_routes_are_bounded_by_number_and_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_cache, "ROUTES_MAX", 3)
    monkeypatch.setattr(route_cache, "CACHED_CODE_BYTES_MAX", 10_000)
    async with deaf_house() as (house, ear):
        for number in range(5):
            await house.put(f"small{number}")
            house.start(f"small{number}", {})
        await until(lambda: len(ear.submitted()) == 5, "the submissions")
        assert [key[2] for key in house.controller._routes.kept()] == ["small2", "small3", "small4"]
        for number in range(3):
            await house.put(f"large{number}", ECHO + "#" * 6_000)
            house.start(f"large{number}", {})
        await until(lambda: len(ear.submitted()) == 8, "the submissions")
        assert [key[2] for key in house.controller._routes.kept()] == ["large2"]
        await house.entities.delete_action("guest", "large2")
        assert house.controller._routes.kept() == []
        assert house.controller._routes.code_bytes == 0


async def test_thousands_of_activations_of_many_actions_leave_nothing() -> None:
    actions = [f"act{number}" for number in range(30)]
    async with open_house(
        memory_mb=8 * 256,
        pool={"keep_alive_us": 20_000},
        scheduler={"idle_grace_us": 20_000, "stop_grace_us": 20_000, "decision_interval_us": 5_000},
    ) as house:
        for name in actions:
            await house.put(name, "def main(args):\n    print(args)\n    return args\n")

        async def user(first: int) -> None:
            for number in range(first, 3_000, 32):
                name = actions[number * len(actions) // 3_000]
                blocking = number % 3 > 0
                answer = await house.invoke(name, {"n": number}, blocking=blocking)
                assert answer.status == (200 if blocking else 202), answer

        async def load() -> None:
            await asyncio.gather(*(user(first) for first in range(32)))

        await load()
        left = {"pending": 0, "core_queues": 0, "containers": 0, "talking": 0}

        def quiet() -> bool:
            return {**house.sizes(), **left} == house.sizes()

        await until(quiet, "the end of queues and containers", 20)
        await until(lambda: not any(house.sizes().values()), f"an empty house: {house.sizes()}")
        house.check()
        await house.activations.flush()
        assert await house.activations.count("guest") == 3_000
        assert len(house.controller._routes.kept()) == len(actions)
        gc.collect()
        objects = len(gc.get_objects())
        await load()
        await until(lambda: not any(house.sizes().values()), f"an empty house: {house.sizes()}", 20)
        await house.activations.flush()
        gc.collect()
        assert len(gc.get_objects()) - objects < 3_000, "less than one object per activation"


async def test_more_actions_than_fit_into_memory_take_turns() -> None:
    async with open_house(memory_mb=512) as house:
        for name in ("a", "b", "c"):
            await house.put(name)
        for turn in range(3):
            for name in ("a", "b", "c"):
                answer = await house.invoke(name, {"turn": turn})
                assert (answer.status, answer.body) == (200, {"turn": turn})
                assert house.invoker.pool.used_mb() <= 512
        house.check()


async def test_the_cap_of_a_namespace_holds_under_load() -> None:
    async with open_house(containers_max=2) as house:
        await house.put(
            "act", "import time\ndef main(args):\n    time.sleep(0.002)\n    return args\n"
        )
        callers = [house.start("act", {"n": n}) for n in range(64)]
        most = 0
        for number, caller in enumerate(callers):
            answer = await asyncio.wait_for(caller.answered, 20)
            assert (answer.status, answer.body) == (200, {"n": number})
            most = max(most, len(house.invoker._containers))
        assert 1 <= most <= 2
        assert house.invoker.pool.counts()["created"] <= 2
        house.check()
