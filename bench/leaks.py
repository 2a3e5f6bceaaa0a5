"""What a server leaves behind after many containers and many activations: nothing, or exit code 1.

One ``acs standalone`` goes through two phases: ``--cycles`` containers that are created, used once
and removed, because eight actions take turns in memory for four; then ``--activations`` in warm
containers.  Before, between and after it is looked at in rest: no action, no container.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import httpx
from standalone import BenchFailed, folder, machine, parser, require_wrk, write_json, wrk

from acs_node import wskprops
from acs_node.demo import ServerProcess
from acs_node.docker_client import connect
from acs_node.sandboxes import SandboxError
from acs_node.sandboxes.docker_containers import INSTANCE_LABEL

CONTAINERS = 4
CONTAINER_MB = 256
USERS = 32
WARM_UP_CYCLES = 16
WARM_UP_ACTIVATIONS = 300_000
"""Until caches and pools of threads and connections are full, the database's of 32 MB among the
last, and buffers have been as large as they become: 4 MB in the first 200,000 activations.  What
grows after that is a leak."""

ALLOWED = {"threads": 2, "sockets": 8, "descriptors": 8, "rss_mb": 1.0}
"""What may come although nothing leaks: threads and connections to the engine are kept for the
next time, as many as were ever wanted at once, and an allocator keeps what it was given."""

DATABASE_MB = 32.0
"""Allowed besides in a run too short to fill the database's cache."""

REST_S = 60.0
ACTION = "def main(args):\n    return args\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of a server at rest."""

    containers: int
    folders: int
    processes: int
    threads: int
    descriptors: int
    sockets: int
    pipes: int
    rss_mb: float


class Subject:
    """A running server, used over HTTP and looked at from outside."""

    def __init__(self, server: ServerProcess, sandbox: str, here: Path) -> None:
        self.server = server
        self._docker = connect() if sandbox == "docker" else None
        self._label = f"{INSTANCE_LABEL}={(server.data / 'instance').read_text().strip()}"
        self._script = here / "load.lua"
        user, _, key = server.auth.partition(":")
        self._client = httpx.Client(
            base_url=f"{server.url}{wskprops.API_PATH}/",
            auth=(user, key), timeout=60.0, trust_env=False,
        )  # fmt: skip

    def close(self) -> None:
        self._client.close()
        if self._docker is not None:
            self._docker.close()

    def created(self) -> int:
        return int(self._client.get("acs/status").json()["containers_created"])

    def turn_over(self, cycles: int) -> int:
        """Use containers once each until ``cycles`` were created; return how many were."""
        before = self.created()
        with self._actions(2 * CONTAINERS):
            while (made := self.created() - before) < cycles:
                # Two at least: with one each would use what it used last.
                turns = 1 + -(-min(cycles - made, 100) // CONTAINERS)
                with ThreadPoolExecutor(CONTAINERS) as users:
                    for _ in users.map(self._take_turns, range(CONTAINERS), [turns] * CONTAINERS):
                        pass
        return made

    def load(self, activations: int) -> int:
        """Have one action run so often; return how often it did."""
        done = 0
        with self._actions(1):
            auth = self._client.build_request("GET", "acs/status")
            (header,) = self._client.auth.auth_flow(auth)  # type: ignore[union-attr]
            self._script.write_text(
                'wrk.method = "POST"\nwrk.body = "{}"\n'
                'wrk.headers["Content-Type"] = "application/json"\n'
                f'wrk.headers["Authorization"] = "{header.headers["Authorization"]}"\n'
            )
            url = f"{self._client.base_url}{_action(0)}?blocking=true"
            self._client.post(url, json={}).raise_for_status()  # so that its container is there
            while done < activations:
                seen = wrk(url, self._script, USERS, 2)
                if seen.errors:
                    raise BenchFailed(f"{seen.errors} of {seen.requests} activations failed")
                done += seen.requests
        return done

    def at_rest(self) -> Seen:
        """Wait until no container is left, and say what is."""
        _wait_for(lambda: self._client.get("acs/status").json()["containers"] == 0, "containers")
        _wait_for(lambda: not self._containers(), "the engine's containers")
        pid = self.server.pid
        links = Path(f"/proc/{pid}/fd")
        kinds = []
        for descriptor in links.iterdir():
            try:
                kinds.append(stat.S_IFMT(descriptor.stat().st_mode))
            except OSError:
                kinds.append(0)  # a file that was deleted, or it was closed at this moment
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Seen(
            containers=len(self._containers()),
            folders=len(list((self.server.data / "sandboxes").iterdir())),
            processes=_children(pid),
            threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
            descriptors=len(kinds),
            sockets=kinds.count(stat.S_IFSOCK),
            pipes=kinds.count(stat.S_IFIFO),
            rss_mb=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        )

    def _containers(self) -> list[Any]:
        if self._docker is None:
            return []
        found: list[Any] = self._docker.api.containers(all=True, filters={"label": self._label})
        return found

    @contextmanager
    def _actions(self, count: int) -> Iterator[None]:
        """Have so many actions; with them their containers go."""
        limits = {"memory": CONTAINER_MB}
        for index in range(count):
            body = {"exec": {"kind": "python:default", "code": ACTION}, "limits": limits}
            self._client.put(_action(index), json=body).raise_for_status()
        yield
        for index in range(count):
            self._client.delete(_action(index)).raise_for_status()

    def _take_turns(self, user: int, turns: int) -> None:
        for turn in range(turns):
            body = {"user": user, "turn": turn}
            path = f"{_action(2 * user + turn % 2)}?blocking=true&result=true"
            reply = self._client.post(path, json=body)
            if reply.status_code != 200 or reply.json() != body:
                raise BenchFailed(f"wrong answer: {reply.status_code} {reply.text}")


def _action(index: int) -> str:
    return f"namespaces/_/actions/leaks{index}"


def _children(pid: int) -> int:
    found = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            found += entry.read_text().rpartition(")")[2].split()[1] == str(pid)
        except OSError:
            continue  # ended meanwhile
    return found


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + REST_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"{what} are still there after {REST_S:g} s without work")
        time.sleep(0.02)


def leaks(before: Seen, after: Seen, cache_mb: float = 0.0) -> list[str]:
    """Name what there is more of than may be; ``cache_mb`` of memory may come besides."""
    found = []
    for name in [field.name for field in fields(Seen)]:
        old, new = getattr(before, name), getattr(after, name)
        allowed = ALLOWED.get(name, 0) + (cache_mb if name == "rss_mb" else 0)
        if new - old > allowed:
            found.append(f"{name}: {old:g} before, {new:g} after (allowed: {allowed:g} more)")
    return found


def show(rows: dict[str, Seen]) -> None:
    """Print what was seen, a line for each time."""
    names = [field.name for field in fields(Seen)]
    width = max(map(len, rows))
    print(" " * width, *[f"{name:>11}" for name in names])
    for title, seen in rows.items():
        print(f"{title:{width}}", *[f"{getattr(seen, name):11.4g}" for name in names])


def measure(subject: Subject, cycles: int, activations: int) -> dict[str, Seen]:
    """Go through the phases; return what was seen before, between and after."""
    subject.turn_over(min(cycles, WARM_UP_CYCLES))
    subject.load(warm_up(activations))
    rows = {"before": subject.at_rest()}
    created = subject.turn_over(cycles)
    rows[f"after {created:,} containers"] = subject.at_rest()
    ran = subject.load(activations)
    rows[f"after {ran:,} activations"] = subject.at_rest()
    return rows


def warm_up(activations: int) -> int:
    """Return how many activations run before anything is counted."""
    return min(3 * activations, WARM_UP_ACTIVATIONS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("what is left behind")
    options.add_argument("--cycles", type=int, default=1_000, help="containers to create")
    options.add_argument("--activations", type=int, default=100_000)
    chosen = options.parse_args(arguments)
    print(f"sandbox {chosen.sandbox}, {machine()}")
    memory = ("--memory", str(CONTAINERS * CONTAINER_MB))
    try:
        require_wrk()
        with (
            folder() as here,
            ServerProcess(here, "--sandbox", chosen.sandbox, *memory) as server,
        ):
            subject = Subject(server, chosen.sandbox, here)
            try:
                rows = measure(subject, chosen.cycles, chosen.activations)
            finally:
                subject.close()
            if code := server.stop():
                raise BenchFailed(f"the server ended with code {code}{server.last_output()}")
    except (BenchFailed, SandboxError, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    show(rows)
    cache_mb = 0.0 if warm_up(chosen.activations) == WARM_UP_ACTIVATIONS else DATABASE_MB
    found = [
        f"{title}: {leak}"
        for (_, before), (title, after) in itertools.pairwise(rows.items())
        for leak in leaks(before, after, cache_mb)
    ]
    for each in found:
        print(f"LEAK {each}")
    document = {"sandbox": chosen.sandbox, "machine": machine(), "leaks": found}
    document["seen"] = {title: asdict(seen) for title, seen in rows.items()}
    write_json(chosen.json, document)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
