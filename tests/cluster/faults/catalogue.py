"""The faults: what is done to a cluster while it works, and what each may cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.load import pause

from acs_node.etcd import Etcd, EtcdConfig, EtcdError

from .evidence import History
from .world import World

DOWN_S: Final = 3.0
"""How much longer than a lease what was killed stays down: the others take over before."""

APART_S: Final = 6.0
"""How much longer than a lease a partition lasts: links are given up as well."""

JUMP_S: Final = 12.0
"""How long a clock stays wrong: a controller sweeps every 10 s."""

INVOKERS: Final = ("i0", "i1", "i2")


class Moment:
    """When a fault began and ended."""

    def __init__(self, history: History) -> None:
        self.hurt_s = 0.0
        self.healed_s = 0.0
        self._history = history

    def hurt(self) -> None:
        """Say that the fault begins now."""
        self.hurt_s = time.monotonic()
        self._history.mark()

    def healed(self) -> None:
        """Say that all is as before from now on."""
        self.healed_s = time.monotonic()


@dataclass(frozen=True)
class Fault:
    """``inflict`` runs in a thread beside the load, from before the fault until it is healed.

    ``unknown_of``: nodes that may have taken with them what they had delivered and not finished.
    ``back_of``: whether throughput is to be back after the fault began, or after it was healed,
    within ``back_leases`` of a lease and one second.  ``orphans``: invokers that are cut off with
    containers that run on.  ``during_min``: least throughput during the fault,
    as a share of that before.  ``may_fail``: what definite failures may say, of work that could not
    run and is known not to have.  ``waiting_too``: nobody is left who knows what waited.
    """

    name: str
    inflict: Callable[[World, Moment], None]
    unknown_of: tuple[str, ...] = ()
    back_of: str = "hurt"
    back_leases: float = 1.0
    orphans: tuple[str, ...] = ()
    during_min: float = 0.0
    may_fail: tuple[str, ...] = ()
    waiting_too: bool = False
    world: dict[str, Any] = field(default_factory=dict)


def _killed(*names: str) -> Fault:
    # Where nobody of a kind is left somebody starts it again; else the others take over.
    at_once = "c0" in names or names == ("s0", "s1")

    def inflict(world: World, moment: Moment) -> None:
        moment.hurt()
        world.kill(*names)
        if not at_once:
            pause(world.lease_s + DOWN_S)
        world.revive(*names)
        moment.healed()

    if names == ("s0",):
        unknown_of: tuple[str, ...] = ()
    elif all(name.startswith("i") for name in names):
        unknown_of = names
    else:  # what controllers and schedulers had delivered anywhere may be in doubt
        unknown_of = INVOKERS
    name = f"kill -9 of {', '.join(names)}"
    return Fault(name, inflict, unknown_of, waiting_too=names == ("c0", "s0"))


# A 202 whose row was being written when the controller found that it is alone: it has not run.
_CUT_OFF: Final = ("It is cut off",)


def _slept(name: str) -> Fault:
    def inflict(world: World, moment: Moment) -> None:
        moment.hurt()
        world.freeze(name)
        pause(2 * world.lease_s + 1)
        world.thaw(name)
        moment.healed()
        world.until(lambda: world.exits, f"the end of {name}, whose lease is over")
        world.until(lambda: _is_member(world, name), f"{name} to be back")

    orphans = (name,) if name.startswith("i") else ()
    unknown = {"i": (name,), "c": INVOKERS, "s": ()}[name[0]]
    back_of = "healed" if name == "c0" else "hurt"
    return Fault(
        f"SIGSTOP of {name}, longer than its lease",
        inflict,
        unknown,
        back_of,
        orphans=orphans,
        may_fail=_CUT_OFF if name == "c0" else (),
    )


def _member(world: World, name: str) -> str:
    role = world.nodes[name].role
    return world.etcdctl("get", f"acs/member/{role}/{name}", "--print-value-only").strip()


def _is_member(world: World, name: str) -> bool:
    node = world.nodes[name]
    return node.is_running() and "health on" in node.output() and bool(_member(world, name))


def _apart(one: str, other: str, ways: str) -> Fault:
    sign = {"both": "<->", "there": "->", "back": "<-"}[ways]

    def inflict(world: World, moment: Moment) -> None:
        moment.hurt()
        world.cut(one, other, ways)
        pause(world.lease_s + APART_S)
        world.network.heal()
        moment.healed()
        for name in (one, other):
            if name in world.nodes:
                world.until(lambda name=name: _is_member(world, name), f"{name} to be back")

    invokers = tuple(name for name in (one, other) if name.startswith("i"))
    # A controller that is given up for dead has lost touch with what others do for it.
    unknown = INVOKERS if (one, other) == ("c0", "e0") else invokers
    return Fault(
        f"no packets {one} {sign} {other}",
        inflict,
        unknown,
        "healed",
        orphans=invokers,
        may_fail=_CUT_OFF if (one, other) == ("c0", "e0") else (),
    )


def _etcd_away(seconds: float) -> Fault:
    def inflict(world: World, moment: Moment) -> None:
        moment.hurt()
        world.etcds[0].kill()
        pause(seconds)
        world.etcds[0].spawn()
        moment.healed()

    return Fault(
        f"etcd stopped for {seconds:g} s",
        inflict,
        back_of="healed",
        during_min=0.9,
        # Who has no container and gets none waits for as long as work may wait.
        may_fail=("Activation processing is not initiated",),
    )


def _etcd_compacted(world: World, moment: Moment) -> None:
    """Compact what watches would resume from: nobody can follow while etcd comes back."""
    moment.hurt()
    world.etcds[0].kill()
    for name in world.nodes:
        world.cut(name, "e0")
    world.etcds[0].spawn()
    world.until(lambda: _answers(world), "etcd")
    for n in range(20):
        world.etcdctl("put", "other/key", str(n))
    status = json.loads(world.etcdctl("endpoint", "status", "--write-out=json"))
    world.etcdctl("compact", str(status[0]["Status"]["header"]["revision"]))
    world.network.heal()
    moment.healed()


def _answers(world: World) -> bool:
    try:
        world.etcdctl("endpoint", "health")
    except Exception:
        return False
    return True


def _leader(world: World) -> int:
    for number, each in enumerate(json.loads(world.etcdctl("endpoint", "status", "-w=json"))):
        status = each["Status"]
        if status["leader"] == status["header"]["member_id"]:
            return number
    raise AssertionError("etcd has no leader")


def _etcd_leader_killed(world: World, moment: Moment) -> None:
    leader = world.etcds[_leader(world)]
    moment.hurt()
    leader.kill()
    pause(world.lease_s + DOWN_S)
    leader.spawn()
    moment.healed()


def _etcd_leader_apart(world: World, moment: Moment) -> None:
    """The leader of etcd no longer reaches the other two; everybody else reaches all three."""
    leader = world.etcds[_leader(world)].name
    moment.hurt()
    for other in world.etcds:
        if other.name != leader:
            world.cut(leader, other.name)
    pause(world.lease_s + APART_S)
    world.network.heal()
    moment.healed()


def _etcd_full(world: World, moment: Moment) -> None:
    """Fill etcd up to its quota: it takes no writes any more, until an operator makes room."""
    moment.hurt()
    asyncio.run(_fill(world.endpoints))
    assert "NOSPACE" in world.etcdctl("alarm", "list")
    pause(2 * world.lease_s)
    world.etcdctl("del", "--prefix", "fill/")
    status = json.loads(world.etcdctl("endpoint", "status", "--write-out=json"))
    world.etcdctl("compact", str(status[0]["Status"]["header"]["revision"]))
    world.etcdctl("defrag")
    world.etcdctl("alarm", "disarm")
    moment.healed()


async def _fill(endpoints: str) -> None:
    etcd = Etcd(EtcdConfig((endpoints,)))
    try:
        for n in range(1_000):
            await etcd.put(f"fill/{n}", b"x" * 1_000_000)
    except EtcdError as error:
        if "space" not in str(error):
            raise
    finally:
        await etcd.close()


def _clock_jumps(name: str) -> Fault:
    def inflict(world: World, moment: Moment) -> None:
        moment.hurt()
        for offset_s in (3_600, -3_600, 0):
            world.set_clock(name, offset_s)
            pause(JUMP_S)
        moment.healed()

    return Fault(
        f"clock of {name} +1 h, -1 h, right again",
        inflict,
        back_leases=0.0,
        during_min=0.9,
        world={"preload": (name,)},
    )


def _engine_restarted(world: World, moment: Moment) -> None:
    """Stop the Docker Engine of i0, its containers with it, and start it again."""
    assert world.engine is not None
    world.until(world.in_engine, "a container in the engine")
    moment.hurt()
    world.engine.stop()
    pause(world.lease_s + DOWN_S)
    world.engine.start()
    moment.healed()
    world.until(lambda: '"status": "up"' in _member(world, "i0"), "i0 to be well again")


def catalogue() -> list[Fault]:
    """Return all faults, in the order of the table."""
    kinds = (("c0", "s0"), ("c0", "i0"), ("s0", "i0"), ("c0", "e0"), ("s0", "e0"), ("i0", "e0"))
    three = {"etcds": 3}
    return [
        *(_killed(name) for name in ("c0", "s0", "i0")),
        *(
            _killed(*pair)
            for pair in (("c0", "s0"), ("c0", "i0"), ("s0", "i0"), ("s0", "s1"), ("i0", "i1"))
        ),
        *(_slept(name) for name in ("c0", "s0", "i0")),
        *(_etcd_away(seconds) for seconds in (5, 60)),
        Fault("etcd compacted while nobody follows", _etcd_compacted, back_of="healed"),
        Fault(
            "kill -9 of the leader of 3 etcd",
            _etcd_leader_killed,
            back_leases=2.0,
            during_min=0.9,
            world=three,
        ),
        Fault(
            "leader of 3 etcd cut off from the others",
            _etcd_leader_apart,
            back_leases=2.0,
            during_min=0.9,
            world=three,
        ),
        Fault(
            "etcd full (NOSPACE)",
            _etcd_full,
            back_of="healed",
            during_min=0.9,
            world={"quota_bytes": 16 * 1024 * 1024},
        ),
        *(_apart(*pair, ways) for pair in kinds for ways in ("both", "there", "back")),
        *(_clock_jumps(name) for name in ("c0", "s0", "i0")),
        Fault(
            "Docker Engine of i0 stopped and started",
            _engine_restarted,
            unknown_of=("i0",),
            # What ran in containers that the engine took with it.
            may_fail=("The action did not produce a valid response",),
            world={"engine_of": "i0"},
        ),
    ]
