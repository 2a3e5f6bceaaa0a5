"""The talk's interference, measured: the scheduler that pushes and ours, on one engine, in turns.

Both are ``acs standalone`` with the same code but for scheduler and pools, the same sandbox engine
and the same load; each cell is measured for one and then for the other.  Parts, with what DEVIEW
2019 published:

a  two actions of 2 ms with the same home invoker, called in turn (650 times as long as alone)
b  one slot busy for 20 ms, and a second call arrives (520 ms instead of 40 ms)
c  1, 10, 50, 100 actions, 11 users for each slot (14,000 against 90 TPS at 100 actions)
d  twice and four times as many actions as containers
f  is it a fair opponent: 1 action, few slots, so that both have all of them in use, in turns
e  throughput by actions and users: what c measures on its way there
g  ours alone: 100 actions against 1, in turns, both with the same 100 containers and 200 users,
   for runs of nothing and for runs that wait 5 ms

Before c and f are measured both sides make their containers, for runs so long that they want as
many as the baseline may have (memory of one invoker in ten is for blackbox actions there).  Ours
may not have more; in c its rule is content with fewer of one action, in f it comes to have as many.

Needs ``acs images build`` for Docker; honours ``DOCKER_HOST``; leaves no container behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from closed_loop import Loop, Plan, Stage, run
from standalone import FUNCTION, BenchFailed, counts, machine

from acs_core.limits import BLACKBOX_FRACTION, MANAGED_FRACTION
from acs_core.sharding import generate_hash, partition
from acs_node import wskprops
from acs_node.demo import DemoFailed, ServerProcess
from acs_node.entity_types import CONTAINERS_MIN

SIDES = ("sharding", "pull")
MEMORY_MB = 256
RUN_MS = 2
FLAT_RUNS_MS = (0, 5)
PRIME_RUN_MS = 400
"""A run so long that waiting for it costs more than a new container."""

BUSY_MS = 20
START_S = 180.0
"""A start removes what the last one left: up to 180 containers."""

CALL_S = 120.0
USERS_PER_SLOT = 11
OURS_PRIME = 4
"""Users for each container that ours is to make."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; ``users`` of c, the most, come after those of e."""

    turns: int
    pairs: int
    slots: int
    controllers: int
    invokers: int
    users: tuple[int, ...]
    actions: tuple[int, ...]
    seconds: tuple[float, ...]
    still_s: float
    warm_max_s: float
    prime_max_s: float
    fair_slots: int
    fair_pairs: int
    scarce_times: tuple[int, ...]
    scarce_slots: int
    scarce_users: int
    scarce_seconds: float
    scarce_warm_s: float
    flat_containers: int
    flat_pairs: int
    flat_seconds: float

    def primed(self) -> int:
        """Return how many containers the baseline may have for actions of our own images."""
        managed, _ = partition(self.invokers, MANAGED_FRACTION, BLACKBOX_FRACTION)
        return self.slots // self.invokers * managed


FULL = Sizes(
    turns=10, pairs=6, slots=180, controllers=3, invokers=10, users=(180, 2_000),
    actions=(1, 10, 50, 100), seconds=(4, 12), still_s=5, warm_max_s=8, prime_max_s=40,
    fair_slots=40, fair_pairs=3, scarce_times=(2, 4), scarce_slots=4, scarce_users=4,
    scarce_seconds=45, scarce_warm_s=10, flat_containers=100, flat_pairs=3, flat_seconds=6,
)  # fmt: skip
QUICK = Sizes(
    turns=1, pairs=1, slots=4, controllers=2, invokers=2, users=(4, 12), actions=(1, 3),
    seconds=(1, 1), still_s=0.3, warm_max_s=1, prime_max_s=2, fair_slots=4, fair_pairs=1,
    scarce_times=(2,), scarce_slots=2, scarce_users=2, scarce_seconds=1, scarce_warm_s=0.5,
    flat_containers=3, flat_pairs=1, flat_seconds=1,
)  # fmt: skip


class Server:
    """An ``acs standalone`` of one side, with so many slots; its folder is used again."""

    def __init__(
        self,
        folder: Path,
        sandbox: str,
        side: str,
        slots: int,
        controllers: int,
        invokers: int,
        containers: int | None,
    ) -> None:
        arguments = ["--sandbox", sandbox, "--memory", str(slots * MEMORY_MB)]
        if side == "pull" and containers is not None:
            # One more: of a cap one place is kept for calls between functions.
            arguments += ["--containers", str(containers + 1)]
        if side == "sharding":
            arguments += ["--scheduler", side, "--controllers", str(controllers)]
            arguments += ["--invokers", str(invokers)]
        self.side = side
        self.process = ServerProcess(folder, *arguments)
        self.client = httpx.Client(trust_env=False, timeout=CALL_S)

    def __enter__(self) -> Server:
        self.process.start(START_S)
        credential = b64encode(self.process.auth.encode()).decode()
        self.client.base_url = httpx.URL(f"{self.process.url}{wskprops.API_PATH}/")
        self.client.headers["Authorization"] = f"Basic {credential}"
        return self

    def __exit__(self, *error: object) -> None:
        """End it at once: what waits would keep the baseline busy for minutes.

        The next start over its folder removes the containers.
        """
        self.client.close()
        self.process.kill()

    def deploy(self, names: Sequence[str], floor: int = 0) -> None:
        """Create the actions that are missing; of each so many containers are to be kept."""
        for name in names:
            action: Row = {"exec": {"kind": "python:default", "code": FUNCTION}}
            action["annotations"] = [{"key": CONTAINERS_MIN, "value": floor}]
            reply = self.client.put(f"namespaces/_/actions/{name}?overwrite=true", json=action)
            reply.raise_for_status()

    def fill(self, names: Sequence[str], containers: int) -> None:
        """Call each action, and wait until their floors are there."""
        for name in names:
            self.call(name)
        deadline_s = time.monotonic() + CALL_S
        while (there := self.status()["containers"]) != containers:
            if time.monotonic() > deadline_s:
                raise BenchFailed(f"{self.side}: {there} of {containers} after {CALL_S:g} s")
            time.sleep(0.3)
        self.settle()

    def call(self, name: str, sleep_ms: int = RUN_MS) -> float:
        """Call an action and return how long that took, in ms."""
        begun_s = time.perf_counter()
        path = f"namespaces/_/actions/{name}?blocking=true"
        reply = self.client.post(path, json={"sleep_ms": sleep_ms})
        if reply.status_code != 200:
            raise BenchFailed(f"{self.side}: {name}: {reply.status_code} {reply.text[:200]}")
        return 1_000 * (time.perf_counter() - begun_s)

    def status(self) -> Row:
        """Return what the server says of itself."""
        found: Row = self.client.get("acs/status").raise_for_status().json()
        return found

    def settle(self) -> None:
        """Wait until the engine does nothing: no removal of before disturbs what comes."""
        busy_ms = -1
        deadline_s = time.monotonic() + CALL_S
        while (now_ms := self.status()["engine"]["busy_ms"]) != busy_ms:
            if time.monotonic() > deadline_s:
                raise BenchFailed(f"{self.side}: the engine is not done after {CALL_S:g} s")
            busy_ms = now_ms
            time.sleep(0.3)

    def load(
        self, names: Sequence[str], stages: Sequence[Stage], sizes: Sizes, run_ms: int = RUN_MS
    ) -> list[Loop]:
        """Let users call the actions, n-th user n-th action, and measure each stage.

        Where there are several, containers are made before the first one.
        """
        plan = Plan(
            port=self.process.port,
            status_url=f"{self.process.url}{wskprops.API_PATH}/acs/status",
            requests=self._requests(names, run_ms),
            stages=list(stages),
            still_s=sizes.still_s,
            prime_before=0 if len(stages) > 1 else 1,
            prime_requests=self._requests(names, PRIME_RUN_MS),
            # Nothing of what it is asked for then may wait long in the baseline's line; ours makes
            # more containers for waits alone.
            prime_users=sizes.primed() * (1 if self.side == "sharding" else OURS_PRIME),
            prime_to=sizes.primed(),
            prime_max_s=sizes.prime_max_s,
        )
        try:
            return run(plan)
        except RuntimeError as error:
            raise BenchFailed(f"{self.side}: {error}{self.process.last_output()}") from None

    def _requests(self, names: Sequence[str], sleep_ms: int) -> list[str]:
        body = json.dumps({"sleep_ms": sleep_ms})
        head = (
            f" HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {self.client.headers['Authorization']}"
            f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        path = f"{wskprops.API_PATH}/namespaces/_/actions/"
        return [f"POST {path}{name}?blocking=true{head}" for name in names]


class Bench:
    """The two sides, each with a folder that all its servers use."""

    def __init__(self, folder: Path, sandbox: str, sizes: Sizes) -> None:
        self.sizes = sizes
        self._sandbox = sandbox
        self._folders = {side: folder / side[0] for side in SIDES}
        for path in self._folders.values():
            path.mkdir()

    @contextlib.contextmanager
    def server(
        self,
        side: str,
        slots: int,
        controllers: int = 1,
        invokers: int = 2,
        containers: int | None = None,
    ) -> Iterator[Server]:
        folder = self._folders[side]
        made = Server(folder, self._sandbox, side, slots, controllers, invokers, containers)
        with made:
            yield made

    def clean(self) -> None:
        """Remove what the last servers left."""
        for folder in self._folders.values():
            process = ServerProcess(folder, "--sandbox", self._sandbox)
            process.start(START_S)
            process.stop()

    # --- the parts -----------------------------------------------------------------------------

    def neighbours(self) -> list[Row]:
        """Part a: two actions with the same home, called in turn, against one called alone."""
        names = same_home(2)
        rows = []
        for side in SIDES:
            with self.server(side, slots=2) as server:
                server.deploy(names)
                for name in names:
                    server.call(name)
                server.call(names[0])
                server.settle()
                alone = [server.call(names[0]) for _ in range(self.sizes.turns)]
                before = server.status()["engine"]
                in_turn = [server.call(names[n % 2]) for n in range(2 * self.sizes.turns)]
                after = server.status()["engine"]
                one, two = statistics.median(alone), statistics.median(in_turn)
                rows.append(
                    {"side": side, "alone_p50_ms": one, "in_turn_p50_ms": two,
                     "times_as_long": two / one, "started": after["started"] - before["started"],
                     "alone_ms": alone, "in_turn_ms": in_turn}
                )  # fmt: skip
        return rows

    def busy_slot(self) -> list[Row]:
        """Part b: the slot runs for 20 ms when a second call arrives, each time a new action."""
        rows = []
        for side in SIDES:
            seconds: list[float] = []
            with self.server(side, slots=2) as server:
                names = [f"busy{number}" for number in range(self.sizes.pairs)]
                server.deploy(names)
                for name in names:
                    server.call(name)
                    server.settle()
                    first = threading.Thread(target=server.call, args=(name, BUSY_MS))
                    first.start()
                    time.sleep(0.008)  # so that it runs
                    seconds.append(server.call(name, BUSY_MS))
                    first.join()
            rows.append(
                {"side": side, "second_p50_ms": statistics.median(seconds), "second_ms": seconds}
            )
        return rows

    def talk(self) -> list[Row]:
        """Part c, and e on the way."""
        sizes = self.sizes
        stages = [
            Stage(users, seconds, sizes.warm_max_s)
            for users, seconds in zip(sizes.users, sizes.seconds, strict=True)
        ]
        rows = []
        for count in sizes.actions:
            names = [f"act{number}" for number in range(count)]
            for side in SIDES:
                with self.server(
                    side, sizes.slots, sizes.controllers, sizes.invokers, sizes.primed()
                ) as made:
                    made.deploy(names)
                    for loop in made.load(names, stages, sizes):
                        rows.append(row(side, count, loop))
                        tell(rows[-1])
        return rows

    def fair(self) -> list[Row]:
        """Part f: both with the same containers, all in use."""
        small = replace(self.sizes, slots=self.sizes.fair_slots)
        users = USERS_PER_SLOT * small.slots
        stages = [
            Stage(small.slots, small.seconds[0], small.warm_max_s),
            Stage(users, small.seconds[-1], small.warm_max_s),
        ]
        rows = []
        for _ in range(small.fair_pairs):
            for side in SIDES:
                with self.server(
                    side, small.slots, small.controllers, small.invokers, small.primed()
                ) as made:
                    made.deploy(["act0"])
                    rows.append(row(side, 1, made.load(["act0"], stages, small)[-1]))
                    tell(rows[-1])
        return rows

    def flat(self) -> list[Row]:
        """Part g: ours alone, with the same containers."""
        sizes = self.sizes
        containers = sizes.flat_containers
        stage = Stage(2 * containers, sizes.flat_seconds, sizes.warm_max_s)
        rows = []
        for _ in range(sizes.flat_pairs):
            for count in (1, containers):
                names = [f"flat{number}of{count}" for number in range(count)]
                with self.server("pull", containers, containers=containers) as made:
                    made.deploy(names, floor=containers // count)
                    made.fill(names, containers)
                    for run_ms in FLAT_RUNS_MS:
                        (loop,) = made.load(names, [stage], sizes, run_ms)
                        rows.append({"run_ms": run_ms, **row("pull", count, loop)})
                        tell(rows[-1])
        return rows

    def scarce(self) -> list[Row]:
        """Part d: more actions than containers, each with some users."""
        sizes = self.sizes
        rows = []
        for times in sizes.scarce_times:
            count = times * sizes.scarce_slots
            names = [f"act{number}" for number in range(count)]
            stage = Stage(count * sizes.scarce_users, sizes.scarce_seconds, sizes.scarce_warm_s)
            for side in SIDES:
                with self.server(side, sizes.scarce_slots) as made:
                    made.deploy(names)
                    (loop,) = made.load(names, [stage], sizes)
                found = row(side, count, loop)
                fair = sum(loop.answered) / count
                found["times_as_many"] = times
                found["smallest_share"] = min(loop.answered) / fair if fair else 0.0
                found["worst_action_p99_ms"] = max(loop.latency_p99_ms)
                found["swaps_per_s"] = found["removed"] / loop.measured_s
                rows.append(found)
                tell(found)
        return rows


def same_home(count: int) -> list[str]:
    """Return names of actions with the same home among two invokers."""
    names = [f"near{number}" for number in range(100)]
    return [name for name in names if generate_hash("guest", f"guest/{name}") % 2 == 0][:count]


def row(side: str, actions: int, loop: Loop) -> Row:
    """Put a measurement into a row."""
    engine = {
        name: loop.after["engine"][name] - before for name, before in loop.before["engine"].items()
    }
    return {
        "side": side,
        "actions": actions,
        "users": loop.users,
        "tps": loop.tps,
        # User-seconds by answers: what a mean over all waits would be, cut off or not.
        "little_mean_ms": 1_000 * loop.users / loop.tps if loop.tps else None,
        "mean_ms": loop.latency_ms["mean"],
        "at_least_mean_ms": loop.at_least_ms["mean"],
        "p50_ms": loop.latency_ms["p50"],
        "p99_ms": loop.latency_ms["p99"],
        "p999_ms": loop.latency_ms["p99.9"],
        "at_least_p50_ms": loop.at_least_ms["p50"],
        "containers": loop.after["containers"],
        "started": engine["started"],
        "removed": engine["removed"],
        "engine_busy_share": engine["busy_ms"]
        / (loop.after["uptime_ms"] - loop.before["uptime_ms"]),
        "errors": loop.errors(),
        "statuses": loop.statuses,
        "prime_s": loop.prime_s,
        "warm_s": loop.warm_s,
        "still": loop.still,
        "measured_s": loop.measured_s,
        "answered": loop.answered,
    }


def tell(found: Row) -> None:
    """Print a row, while the next one is measured."""
    print(
        f"  {found['users']:5} users {found['actions']:4} actions {found['side']:8}: "
        f"{found['tps']:8,.1f} TPS, mean {found['mean_ms']:9,.1f} ms, "
        f"p99 {found['p99_ms']:9,.1f} ms, {found['containers']} containers, "
        f"+{found['started']} -{found['removed']}, engine busy {found['engine_busy_share']:.0%}, "
        f"{found['errors']} errors, made in {found['prime_s']:.0f} s, warm in "
        f"{found['warm_s']:.0f} s{'' if found['still'] else ', not still'}",
        flush=True,
    )


def keys(parts: dict[str, list[Row]]) -> Row:
    """Compute the four figures from parts c, f and g; None where nothing was answered or measured.

    The means are those of Little's law, as the window cuts off what takes longer.
    """
    rows, flat = parts["c"], parts.get("g", [])
    users = max([r["users"] for r in rows])
    at = {(r["side"], r["actions"]): r for r in rows if r["users"] == users}
    most = max([r["actions"] for r in rows])
    ours, base = at["pull", most], at["sharding", most]
    # Without g: with the containers that its rule has for one action, which are fewer.
    flat = [r for r in flat if r["run_ms"] == 0] or [at["pull", 1], ours]
    one_action = [r for r in parts.get("f", rows) if r["actions"] == 1]
    return {
        f"tps_ratio_{most}_actions": _ratio(ours["tps"], base["tps"]),
        f"mean_latency_ratio_{most}_actions": _ratio(
            base["little_mean_ms"] or 0, ours["little_mean_ms"] or 0
        ),
        f"flatness_{most}_over_1": _median_ratio(flat[1::2], flat[::2]),
        "baseline_1_action_over_ours": _median_ratio(
            *([r for r in one_action if r["side"] == side] for side in SIDES)
        ),
    }


def _median_ratio(ones: Sequence[Row], others: Sequence[Row]) -> float | None:
    """Return the median ratio of TPS over pairs that were measured in turn."""
    ratios = [_ratio(one["tps"], other["tps"]) for one, other in zip(ones, others, strict=True)]
    return None if None in ratios else statistics.median([each for each in ratios if each])


def _ratio(one: float, other: float) -> float | None:
    return one / other if one > 0 and other > 0 else None


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "a": Bench.neighbours,
    "b": Bench.busy_slot,
    "c": Bench.talk,
    "d": Bench.scarce,
    "f": Bench.fair,
    "g": Bench.flat,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts, print them, write them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sandbox", choices=("docker", "process"), default="docker")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all")
    parser.add_argument("--parts", default="abfcgd", help="which, such as ac; e is in c")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the raw numbers as JSON")
    parser.add_argument("--actions", type=counts, help="of part c, such as 1,100")
    parser.add_argument("--slots", type=int, help="containers, and 11 users for each, in part c")
    parser.add_argument("--invokers", type=int, help="that the baseline has in parts c and f")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        wrong, known = (", ".join(sorted(each)) for each in (unknown, PARTS))
        parser.error(f"--parts: there is no part {wrong}; there are {known}")
    sizes = QUICK if options.quick else FULL
    if options.actions:
        sizes = replace(sizes, actions=tuple(options.actions))
    if options.invokers:
        sizes = replace(sizes, invokers=options.invokers)
    if options.slots:
        sizes = replace(
            sizes, slots=options.slots, users=(options.slots, USERS_PER_SLOT * options.slots)
        )
    document: Row = {
        "sandbox": options.sandbox, "sizes": asdict(sizes), "machine": machine(), "parts": {},
    }  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="acs-i-") as name:
            bench = Bench(Path(name), options.sandbox, sizes)
            try:
                for part in options.parts:
                    print(f"part {part}", flush=True)
                    begun_s = time.monotonic()
                    document["parts"][part] = PARTS[part](bench)
                    for each in document["parts"][part]:
                        if part in "ab":
                            print(f"  {each}", flush=True)
                    print(f"  {time.monotonic() - begun_s:.0f} s", flush=True)
                    write(options.out, document)
            finally:
                if options.sandbox == "docker":
                    bench.clean()
    except (BenchFailed, DemoFailed, httpx.HTTPError) as error:
        print(f"interference: {error}", file=sys.stderr)
        return 1
    document["load_average_after"] = os.getloadavg()
    write(options.out, document)
    print(json.dumps(document.get("keys", {}), indent=1))
    return 0


def write(path: Path | None, document: Row) -> None:
    """Write what was measured so far: a part that fails does not cost those before it."""
    if "c" in document["parts"]:
        document["keys"] = keys(document["parts"])
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
