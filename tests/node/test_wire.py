"""What travels between nodes: every message there and back, and what is refused."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core import effects, events
from acs_core.limits import CAUSES_MAX, CONCURRENCY_MAX, COUNT_MAX, MEMORY_MAX_MB, TIME_MAX_US
from acs_node import links
from acs_node.acs_pb2 import CONTROLLER, INVOKER, SCHEDULER, Cause, Frame, Message
from acs_node.wire import PAYLOAD_BYTES_MAX, TEXT_MAX, WireError, decode, encode, kinds

ROOT = Path(__file__).resolve().parents[2]

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
times = st.integers(0, TIME_MAX_US)
outcomes = st.integers(0, 3)
ids = st.lists(names, max_size=5).map(tuple)

specs = st.builds(
    events.QueueSpec,
    names,
    names,
    names,
    times,
    memory_mb=st.integers(1, MEMORY_MAX_MB),
    concurrency=st.integers(1, CONCURRENCY_MAX),
    timeout_us=st.integers(1, TIME_MAX_US),
    action_limit=st.none() | st.integers(0, COUNT_MAX),
    kind=texts,
    containers_min=st.integers(0, COUNT_MAX),
    wait_target_us=st.none() | times,
    wait_max_us=st.none() | st.integers(1, TIME_MAX_US),
)
activations = st.builds(events.Activation, names, st.binary(max_size=99), times, times, ids)
held = st.builds(events.Held, names, st.booleans(), ids, st.booleans())
completions = st.builds(events.Completion, names, times, times, outcomes)
spots = (names, names, times)

MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "submit": st.builds(links.Submit, specs, activations),
    "cancel": st.builds(links.Cancel, names),
    "close": st.builds(links.Close, names, texts),
    "reject": st.builds(
        effects.Reject,
        # Only its id travels: whoever is told has the rest.
        st.builds(events.Activation, names, st.just(b""), st.just(0)),
        st.sampled_from(list(effects.Cause)).map(int),
        texts,
        times,
    ),
    "throttle": st.builds(effects.Throttle, names, st.booleans(), texts),
    "queue_closed": st.builds(links.QueueClosed, names),
    "misdirected": st.builds(links.Misdirected, names, names, names),
    "adopt": st.builds(effects.Adopt, names, times),
    "create": st.builds(effects.Create, *spots, specs, st.booleans()),
    "deliver": st.builds(effects.Deliver, *spots, activations),
    "resume": st.builds(effects.Resume, *spots),
    "release": st.builds(effects.Release, *spots, texts),
    "invoker_reported": st.builds(
        events.InvokerReported,
        names,
        st.integers(0, MEMORY_MAX_MB),
        st.integers(0, MEMORY_MAX_MB),
        st.integers(0, 2**40),
        st.just(0.0) | st.floats(0.001, allow_infinity=False),
    ),
    "adopted": st.builds(
        events.Adopted, names, names, times, st.lists(held, max_size=4).map(tuple)
    ),
    "container_serving": st.builds(events.ContainerServing, names, names),
    "creation_failed": st.builds(events.CreationFailed, names, st.integers(0, 1), texts),
    "pulled": st.builds(
        events.Pulled,
        names,
        times,
        st.integers(0, CONCURRENCY_MAX),
        ids,
        st.lists(completions, max_size=4).map(tuple),
    ),
    "returned": st.builds(events.Returned, names, times, ids),
    "container_paused": st.builds(events.ContainerPaused, names),
    "container_leaving": st.builds(events.ContainerLeaving, names, texts),
    "container_gone": st.builds(events.ContainerGone, names, texts),
    "result": st.builds(
        links.Result,
        names,
        outcomes,
        st.binary(max_size=99),
        *[times] * 4,
        st.booleans(),
        st.booleans(),
    ),
    "logs": st.builds(
        links.Logs, st.lists(st.tuples(names, st.lists(texts, max_size=3)), max_size=3)
    ),
    "action_wanted": st.builds(links.ActionWanted, names),
    "action_found": st.builds(links.ActionFound, names, st.binary(max_size=99), times, texts),
    "inquiry": st.builds(links.Inquiry, ids),
    "not_held": st.builds(links.NotHeld, ids),
    "fence": st.builds(links.Fence, names, ids),
    "fenced": st.builds(links.Fenced, names, ids),
    "drained": st.builds(links.Drained),
}


def seen(value: Any) -> Any:
    """Return a value that two equal messages have in common, on both builds of the core."""
    if isinstance(value, (list, tuple)):
        return [seen(each) for each in value]
    if type(value).__module__.startswith(("acs_core", "acs_node")) and not isinstance(value, int):
        fields = [name for name in dir(value) if not name.startswith("_")]
        return type(value).__name__, {name: seen(getattr(value, name)) for name in fields}
    return value


def test_every_message_of_the_proto_is_tried() -> None:
    assert MESSAGES.keys() == {field.name for field in Message.DESCRIPTOR.fields}


OWN_NOTES = {"queue", "delivered_us", "started", "withdrawn"}
"""What a scheduler writes on an activation for itself."""


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_field_of_an_object_is_in_the_proto(kind: str) -> None:
    """A field that the core gets later must not stay behind in silence."""

    def same(value: Any, message: Any) -> None:
        if type(value).__name__ == "Reject":
            return  # only the id of its activation
        if type(value).__name__ == "Logs":
            return  # pairs
        attributes = {name for name in dir(value) if not name.startswith("_")}
        attributes -= OWN_NOTES if isinstance(value, events.Activation) else set()
        assert attributes == {field.name for field in message.DESCRIPTOR.fields}
        for field in message.DESCRIPTOR.fields:
            inner = getattr(value, field.name)
            if field.message_type is not None:
                repeated = field.is_repeated
                for one, part in zip(
                    inner if repeated else [inner],
                    getattr(message, field.name) if repeated else [getattr(message, field.name)],
                    strict=True,
                ):
                    same(one, part)

    @settings(max_examples=10, deadline=None)
    @given(MESSAGES[kind])
    def check(message: Any) -> None:
        same(message, getattr(encode(message), kind))

    check()


def test_each_role_sends_what_is_its_own_and_no_more() -> None:
    roles = (CONTROLLER, SCHEDULER, INVOKER)
    by_pair = {(a, b): kinds(a, b) for a in roles for b in roles}
    assert by_pair[INVOKER, CONTROLLER] == {
        "result",
        "logs",
        "action_wanted",
        "fenced",
        "drained",
    }
    assert "deliver" in by_pair[SCHEDULER, INVOKER]
    assert all(not by_pair[role, role] for role in roles)
    every = [kind for found in by_pair.values() for kind in found]
    assert sorted(every) == sorted(MESSAGES)


def test_causes_have_the_same_numbers() -> None:
    assert {cause.name: int(cause) for cause in effects.Cause} == dict(Cause.items())


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_arrives_as_it_was_sent(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(MESSAGES[kind])
    def there_and_back(message: Any) -> None:
        encoded = encode(message)
        assert encoded.WhichOneof("kind") == kind
        again = decode(Message.FromString(encoded.SerializeToString()))
        assert seen(again) == seen(message)
        assert encode(again).SerializeToString() == encoded.SerializeToString()

    there_and_back()


def test_what_does_not_travel_is_refused() -> None:
    with pytest.raises(TypeError, match="TimeReached does not travel"):
        encode(events.TimeReached())


def test_times_are_moved_to_the_receivers_clock() -> None:
    activation = events.Activation("a", b"", 1_000, 2_000)
    message = encode(effects.Deliver("c", "i", 1, activation))
    moved = decode(message, 500).activation  # type: ignore[attr-defined]
    assert (moved.arrived_us, moved.deadline_us) == (1_500, 2_500)


def test_a_time_before_the_receivers_clock_began_is_its_beginning() -> None:
    message = encode(effects.Deliver("c", "i", 1, events.Activation("a", b"", 1_000, 2_000)))
    moved = decode(message, -5_000).activation  # type: ignore[attr-defined]
    # 0 would say that there is no deadline.
    assert (moved.arrived_us, moved.deadline_us) == (0, 1)


def test_no_deadline_stays_none() -> None:
    message = encode(effects.Deliver("c", "i", 1, events.Activation("a", b"", 1_000)))
    assert decode(message, 7).activation.deadline_us == 0  # type: ignore[attr-defined]


def test_what_a_function_prints_need_not_be_utf8() -> None:
    message = encode(links.Logs([("a", ["stdout: \udcff"])]))
    assert decode(message) == links.Logs([("a", ["stdout: ?"])])


def spoil(kind: str, change: Callable[[Any], object]) -> Message:
    """Return a good message of a kind after ``change``."""
    good = GOOD[kind]
    message = Message.FromString(encode(good).SerializeToString())
    change(getattr(message, kind))
    return message


SPEC = events.QueueSpec("q", "ns", "a", 1, containers_min=2)
GOOD: dict[str, Any] = {
    "submit": links.Submit(SPEC, events.Activation("a", b"", 0)),
    "reject": effects.Reject(events.Activation("a", b"", 0), 0, "", 0),
    "create": effects.Create("c", "i", 1, SPEC, True),
    "deliver": effects.Deliver("c", "i", 1, events.Activation("a", b"", 0)),
    "adopted": events.Adopted("i", "q", 1, (events.Held("c", True, ("a",), True),)),
    "pulled": events.Pulled("c", 1, 1, (), (events.Completion("a", 0, 0, 0),)),
    "release": effects.Release("c", "i", 1, ""),
    "invoker_reported": events.InvokerReported("i", 1),
    "creation_failed": events.CreationFailed("c", 0, ""),
    "returned": events.Returned("c", 1, ("a",)),
    "result": links.Result("a", 0, b"{}", 0, 0, 0, 0, False, False),
    "fence": links.Fence("s", ()),
    "inquiry": links.Inquiry(()),
    "not_held": links.NotHeld(()),
    "container_gone": events.ContainerGone("c", ""),
    "logs": links.Logs([("a", [])]),
    "action_wanted": links.ActionWanted("q"),
}


def setter(name: str, value: Any) -> Callable[[Any], object]:
    *path, last = name.split(".")

    def change(message: Any) -> None:
        for step in path:
            message = getattr(message, step)
        setattr(message, last, value)

    return change


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("submit", lambda m: m.ClearField("spec"), "submit.spec is missing"),
        ("submit", lambda m: m.ClearField("activation"), "submit.activation is missing"),
        ("submit", setter("spec.queue", ""), "submit.spec.queue is ''"),
        ("submit", setter("spec.memory_mb", 0), "submit.spec.memory_mb is 0"),
        ("submit", setter("activation.activation_id", ""), "submit.activation.activation_id is ''"),
        ("submit", setter("activation.arrived_us", -1), "submit.activation.arrived_us is -1"),
        ("submit", setter("activation.deadline_us", -1), "submit.activation.deadline_us is -1"),
        (
            "submit",
            setter("activation.payload", bytes(PAYLOAD_BYTES_MAX + 1)),
            rf"submit.activation.payload has {PAYLOAD_BYTES_MAX + 1} bytes; "
            rf"it must have at most {PAYLOAD_BYTES_MAX}",
        ),
        (
            "submit",
            lambda m: m.activation.causes.extend(["x"] * (CAUSES_MAX + 1)),
            f"submit.activation.causes has {CAUSES_MAX + 1} ids",
        ),
        ("reject", setter("cause", 10), "reject.cause is 10; it must be an integer in 0..9"),
        ("reject", setter("reason", "x" * (TEXT_MAX + 1)), f"has {TEXT_MAX + 1} characters"),
        ("create", lambda m: m.ClearField("spec"), "create.spec is missing"),
        ("create", setter("epoch", -1), "create.epoch is -1"),
        ("create", setter("invoker", ""), "create.invoker is ''"),
        ("deliver", setter("container", "x" * 1025), "deliver.container is 'xxx"),
        ("deliver", setter("epoch", 2**62), f"deliver.epoch is {2**62}"),
        ("deliver", lambda m: m.ClearField("activation"), "deliver.activation is missing"),
        (
            "adopted",
            lambda m: m.held[0].activation_ids.extend(["x"] * CONCURRENCY_MAX),
            f"adopted.held.activation_ids has {CONCURRENCY_MAX + 1} entries",
        ),
        ("adopted", lambda m: m.held.add(), "adopted.held.container is ''"),
        (
            "adopted",
            lambda m: m.held.extend([m.held[0]] * 100_000),
            "adopted.held has 100001 entries",
        ),
        ("pulled", setter("free_slots", 1001), "pulled.free_slots is 1001"),
        ("pulled", lambda m: m.started.append(""), "pulled.started is ''"),
        ("pulled", lambda m: m.completions.add(), "pulled.completions.activation_id is ''"),
        ("pulled", lambda m: setter("outcome", 4)(m.completions[0]), "pulled.outcome is 4"),
        (
            "pulled",
            lambda m: m.completions.extend([m.completions[0]] * CONCURRENCY_MAX),
            f"pulled.completions has {CONCURRENCY_MAX + 1} entries",
        ),
        ("release", setter("why", "x" * (TEXT_MAX + 1)), "release.why has"),
        ("invoker_reported", setter("creations_per_s", -1.0), "creations_per_s is -1.0"),
        ("invoker_reported", setter("memory_mb", -1), "invoker_reported.memory_mb is -1"),
        ("creation_failed", setter("failure", 3), "creation_failed.failure is 3"),
        ("returned", lambda m: m.activation_ids.append(""), "returned.activation_ids is ''"),
        ("result", setter("outcome", 4), "result.outcome is 4"),
        ("result", setter("start_ms", -1), "result.start_ms is -1"),
        ("fence", lambda m: m.activation_ids.append(""), "fence.activation_ids is ''"),
        ("inquiry", lambda m: m.activation_ids.append(""), "inquiry.activation_ids is ''"),
        ("not_held", lambda m: m.activation_ids.append(""), "not_held.activation_ids is ''"),
        (
            "fence",
            lambda m: m.activation_ids.extend(["x"] * 100_001),
            "fence.activation_ids has 100001 entries",
        ),
        ("container_gone", setter("container", ""), "container_gone.container is ''"),
        ("logs", lambda m: m.entries.add(), "logs.activation_id is ''"),
        (
            "logs",
            lambda m: m.entries.extend([m.entries[0]] * 100_000),
            "logs.entries has 100001",
        ),
        ("action_wanted", setter("queue", ""), "action_wanted.queue is ''"),
    ],
)
def test_what_is_out_of_bounds_is_an_error_that_names_it(
    kind: str, change: Callable[[Any], object], says: str
) -> None:
    with pytest.raises(WireError, match=says):
        decode(spoil(kind, change))


def test_an_empty_message_is_an_error() -> None:
    with pytest.raises(WireError, match="message is empty"):
        decode(Message())


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(GOOD)), st.data())
def test_whatever_comes_is_a_message_or_a_wire_error(
    noise: bytes, kind: str, data: st.DataObject
) -> None:
    good = bytearray(encode(GOOD[kind]).SerializeToString())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at : at + data.draw(st.integers(0, 3))] = noise
    # A stream ends with what is no protobuf; nothing else may be raised.
    with contextlib.suppress(DecodeError, WireError):
        encode(decode(Message.FromString(bytes(good))))


def test_the_checked_in_modules_are_what_the_protos_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "protos"), str(tmp_path)], check=True)
    made = sorted((tmp_path / "acs_node").iterdir())
    assert [path.name for path in made] == [
        "acs_pb2.py",
        "acs_pb2.pyi",
        "etcd_pb2.py",
        "etcd_pb2.pyi",
    ]
    for path in made:
        assert path.read_text() == (ROOT / "src" / "acs_node" / path.name).read_text(), path.name


def test_a_heart_beat_is_small() -> None:
    assert len(Frame(first=2**40, received=2**40, sent_us=2**40).SerializeToString()) < 32
