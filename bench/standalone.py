"""``acs standalone`` against the yardstick, and many actions against one; see README.md.

Everything is started here, measured alternately (A B A B ...) and ended by its process id.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

import acs_core
from acs_node import wskprops
from acs_node.demo import ServerProcess
from acs_node.entity_types import CONTAINERS_MIN

BENCH = Path(__file__).parent
YARDSTICK_CONTAINERS = 2
USERS = 64
START_S = 20.0
PRIME_S = 180.0
"""Until all containers of a side are up: a hundred Docker containers take half a minute."""

STILL_S = 0.5
"""The engine is done when it did nothing for so long."""

BODY = '{"name":"world"}'
RESULT = {"greeting": "hi"}
FUNCTION = """\
import time

def main(args):
    if "sleep_ms" in args:
        time.sleep(args["sleep_ms"] / 1000)
    return {"greeting": "hi"}
"""

_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}


class BenchFailed(Exception):
    """Why there is no result, in words for the user."""


# --- load ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What ``wrk`` saw in one run.  Latencies are those of a closed loop."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int


def wrk(url: str, script: Path, users: int, seconds: int) -> Load:
    """Load ``url`` in a closed loop with ``users`` connections from one thread."""
    command = ["wrk", "-t1", f"-c{users}", f"-d{seconds}s", "--latency", "--timeout", "60s"]
    done = subprocess.run(
        [*command, "-s", str(script), url], capture_output=True, text=True, timeout=seconds + 90
    )
    if done.returncode:
        raise BenchFailed(f"wrk ended with code {done.returncode}: {done.stderr or done.stdout}")
    return parse_wrk(done.stdout)


def require_wrk() -> None:
    """Raise BenchFailed where there is no load generator."""
    if shutil.which("wrk") is None:
        raise BenchFailed("the load generator wrk is not installed (package wrk)")


def parse_wrk(text: str) -> Load:
    """Read what ``wrk --latency`` prints; answers other than 2xx and 3xx are errors."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if rate is None or total is None:
        raise BenchFailed(f"wrk printed no result:\n{text}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = sum(int(number) for found in (bad, broken) if found for number in found.groups())
    return Load(float(rate[1]), _percentile(text, 50), _percentile(text, 99), int(total[1]), errors)


def _percentile(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found[1]) * _MILLISECONDS[found[2]] if found else 0.0


# --- what is measured ----------------------------------------------------------------------------


class Side(Protocol):
    """One of two things that are measured alternately."""

    name: str

    def prime(self) -> None:
        """Bring it into the state that is to be measured."""
        ...

    def load(self, seconds: int) -> Load:
        """Measure it."""
        ...

    def containers(self) -> tuple[int, int]:
        """Return how many containers there are, and how many were ever created."""
        ...


class Yardstick:
    """The bare front with its echo containers: programs of their own, unchanged but for the port.

    Its copy in this folder listens on a fixed one, which on a shared machine may be taken.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"yardstick, {YARDSTICK_CONTAINERS} containers"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._url = ""

    def __enter__(self) -> Yardstick:
        sockets = [str(self._folder / f"echo{index}") for index in range(YARDSTICK_CONTAINERS)]
        try:
            for path in sockets:
                self._start(str(BENCH / "bare_container.py"), path)
            for path in sockets:
                _wait_for(partial(_connects, socket.AF_UNIX, path), "an echo container")
            port = free_port()
            front = (BENCH / "bare_front.py").read_text().replace("7100", str(port))
            self._start("-c", front, *sockets)
            _wait_for(partial(_connects, socket.AF_INET, ("127.0.0.1", port)), "the bare front")
        except BaseException:
            self.__exit__()
            raise
        self._url = f"http://127.0.0.1:{port}/"
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def prime(self) -> None:
        """It is as it is."""

    def load(self, seconds: int) -> Load:
        return wrk(self._url, BENCH / "yardstick.lua", USERS, seconds)

    def containers(self) -> tuple[int, int]:
        return YARDSTICK_CONTAINERS, YARDSTICK_CONTAINERS

    def _start(self, *arguments: str) -> None:
        self._processes.append(subprocess.Popen([sys.executable, *arguments]))


class Server:
    """An ``acs standalone`` with ``actions`` no-ops and, if asked for, exactly so many containers.

    Each action has the same number of them for its floor (``acs-containers-min``), so that they
    are kept while the other side is measured.
    """

    def __init__(
        self,
        folder: Path,
        sandbox: str,
        actions: int = 1,
        containers: int | None = None,
        users: int = USERS,
        run_ms: int = 0,
    ) -> None:
        count = "as it comes" if containers is None else str(containers)
        self.name = f"{actions} action{'s' * (actions > 1)}, containers: {count}"
        self.body = BODY
        if run_ms:
            self.name += f", runs of {run_ms} ms"
            self.body = json.dumps({"sleep_ms": run_ms})
        self.users = users
        self._folder = folder
        self._actions = actions
        self._containers = containers
        arguments = ["--sandbox", sandbox]
        if containers is not None:
            # 256 MB each, and room for what is being removed.
            memory_mb = max(4_000, 400 * containers)
            # One more: of a cap one place is kept for calls between functions.
            arguments += ["--containers", str(containers + 1), "--memory", str(memory_mb)]
        self.process = ServerProcess(folder, *arguments)
        self.start_s = START_S
        self._settled = False

    def __enter__(self) -> Self:
        self.process.start(self.start_s)
        try:
            self._deploy()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        code = self.process.stop()
        if code and kind is None:
            raise BenchFailed(f"the server ended with code {code}{self.process.last_output()}")

    def prime(self) -> None:
        deadline_s = time.monotonic() + PRIME_S
        while self._containers is not None and self.containers()[0] != self._containers:
            if time.monotonic() > deadline_s:
                has = self.containers()[0]
                raise BenchFailed(f"{self.name}: {has} of {self._containers} after {PRIME_S:g} s")
            time.sleep(STILL_S)
        if not self._settled:
            self._await_engine()
            # Its run times were those of cold starts, or unknown.
            self.load(2)
            self._settled = True

    def _await_engine(self) -> None:
        """Wait until it does nothing: containers that are being made count as well."""
        busy_ms = -1
        deadline_s = time.monotonic() + PRIME_S
        while (now_ms := self.status()["engine"]["busy_ms"]) != busy_ms:
            if time.monotonic() > deadline_s:
                raise BenchFailed(f"{self.name}: the engine is not done after {PRIME_S:g} s")
            busy_ms = now_ms
            time.sleep(STILL_S)

    def load(self, seconds: int) -> Load:
        script = self._folder / "load.lua"
        script.write_text(self._lua())
        return wrk(f"{self.process.url}{self.path()}", script, self.users, seconds)

    def containers(self) -> tuple[int, int]:
        status = self.status()
        return status["containers"], status["containers_created"]

    def status(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        reply = httpx.get(f"{self.process.url}{wskprops.API_PATH}/acs/status", trust_env=False)
        status: dict[str, Any] = reply.raise_for_status().json()
        return status

    def path(self, action: int = 0) -> str:
        """The path of an action's blocking invocation."""
        return f"{wskprops.API_PATH}/namespaces/_/actions/noop{action}?blocking=true"

    def annotations(self) -> list[dict[str, Any]]:
        """Those of each action: its floor, if there are to be exactly so many containers."""
        if self._containers is None:
            return []
        return [{"key": CONTAINERS_MIN, "value": self._containers // self._actions}]

    def authorization(self) -> str:
        """The value of the header."""
        return f"Basic {b64encode(self.process.auth.encode()).decode()}"

    def _lua(self) -> str:
        """Write the script of ``wrk``; also for one action the request comes from a function, so
        that one and many differ in nothing else.
        """
        return f"""\
wrk.method = "POST"
wrk.body = '{self.body}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "{self.authorization()}"
local requests = {{}}
local turn = 0
function init(args)
  for index = 1, {self._actions} do
    local path = string.gsub("{self.path()}", "noop0", "noop" .. (index - 1))
    requests[index] = wrk.format(nil, path)
  end
end
function request()
  turn = turn % {self._actions} + 1
  return requests[turn]
end
"""

    def _deploy(self) -> None:
        """Create the actions, and look at one answer of each; floors count from then on."""
        headers = {"Authorization": self.authorization()}
        action: dict[str, Any] = {"exec": {"kind": "python:default", "code": FUNCTION}}
        action["annotations"] = self.annotations()
        with httpx.Client(base_url=self.process.url, headers=headers, trust_env=False) as client:
            for index in range(self._actions):
                path = self.path(index)
                client.put(path.partition("?")[0], json=action).raise_for_status()
                reply = client.post(path, json=json.loads(BODY), timeout=90)
                if reply.status_code != 200 or reply.json()["response"]["result"] != RESULT:
                    raise BenchFailed(f"wrong answer: {reply.status_code} {reply.text}")


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _connects(family: int, address: Any) -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"{what} did not start within {START_S:g} s")
        time.sleep(0.01)


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; ``created`` counts the containers that came during it."""

    load: Load
    containers: int
    created: int


@dataclass(slots=True)
class Comparison:
    """Two sides, measured alternately; ``ratio`` is ``ours`` over ``base``."""

    base: str
    ours: str
    pairs: list[tuple[Sample, Sample]] = field(default_factory=list)

    def ratios(self) -> list[float]:
        return [ours.load.requests_per_s / base.load.requests_per_s for base, ours in self.pairs]

    def errors(self) -> int:
        return sum(sample.load.errors for pair in self.pairs for sample in pair)

    def document(self) -> dict[str, Any]:
        """Return it as JSON can take it."""
        return {
            "base": self.base,
            "ours": self.ours,
            "median_ratio": statistics.median(self.ratios()),
            "errors": self.errors(),
            "pairs": [
                {"base": asdict(base), "ours": asdict(ours), "ratio": ratio}
                for (base, ours), ratio in zip(self.pairs, self.ratios(), strict=True)
            ],
        }

    def print(self) -> None:
        print(f"\n{self.ours}  /  {self.base}")
        print("  pair   base 1/s   ours 1/s  ratio   ours p50/p99 ms  containers (new)  errors")
        for number, (base, ours) in enumerate(self.pairs, 1):
            ratio = ours.load.requests_per_s / base.load.requests_per_s
            print(
                f"  {number:4}  {base.load.requests_per_s:9,.0f}  {ours.load.requests_per_s:9,.0f}"
                f"  {ratio:5.2f}   {ours.load.p50_ms:6.2f} / {ours.load.p99_ms:6.2f}"
                f"  {ours.containers:10} ({ours.created})"
                f"  {base.load.errors + ours.load.errors:8}"
            )
        print(f"  median ratio {statistics.median(self.ratios()):.3f}", flush=True)


def compare(base: Side, ours: Side, pairs: int, seconds: int) -> Comparison:
    """Measure both, ``pairs`` times in turn."""
    comparison = Comparison(base.name, ours.name)
    for _ in range(pairs):
        comparison.pairs.append((_sample(base, seconds), _sample(ours, seconds)))
    comparison.print()
    return comparison


def _sample(side: Side, seconds: int) -> Sample:
    side.prime()
    _, created = side.containers()
    load = side.load(seconds)
    containers, created_after = side.containers()
    return Sample(load, containers, created_after - created)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for data, settings and sockets; its path is short, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="acs-bench-") as name:
        yield Path(name)


def comparisons(options: argparse.Namespace) -> Iterator[Comparison]:
    """Measure what was asked for, one comparison after the other."""
    if 1 in options.actions:
        for containers in options.containers:
            with (
                folder() as here,
                folder() as there,
                Yardstick(here) as yardstick,
                Server(there, options.sandbox, containers=containers) as server,
            ):
                yield compare(yardstick, server, options.pairs, options.seconds)
    for actions in options.actions:
        if actions == 1:
            continue
        # With fewer users than containers, one action would use only some of its own.
        users = max(USERS, 2 * actions)
        with (
            folder() as here,
            folder() as there,
            Server(here, options.sandbox, 1, actions, users, options.run_ms) as one,
            Server(there, options.sandbox, actions, actions, users, options.run_ms) as many,
        ):
            yield compare(one, many, options.pairs, options.seconds)


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "core_compiled": acs_core.COMPILED,
    }


# --- the command line ----------------------------------------------------------------------------


def counts(text: str) -> list[int]:
    """Read ``1,100``."""
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: each must be at least 1")
    return numbers


def container_counts(text: str) -> list[int | None]:
    """Read ``as-it-comes,16``."""
    return [None if part == "as-it-comes" else counts(part)[0] for part in text.split(",")]


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write the raw numbers if a file was named."""
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n")


def parser(description: str) -> argparse.ArgumentParser:
    """Options that the programs of this folder share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--sandbox", choices=("process", "docker"), default="process")
    options.add_argument("--seconds", type=int, default=4, help="of each measurement")
    options.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("acs standalone against the yardstick")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--actions", type=counts, default=[1, 100])
    options.add_argument("--containers", type=container_counts, default=[None, 16])
    options.add_argument("--run-ms", type=int, default=0, help="of several actions: how they wait")
    chosen = options.parse_args(arguments)
    document = {"sandbox": chosen.sandbox, "seconds": chosen.seconds, "machine": machine()}
    print(f"sandbox {chosen.sandbox}, {chosen.seconds} s each, {document['machine']}")
    try:
        require_wrk()
        results = list(comparisons(chosen))
    except (BenchFailed, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["comparisons"] = [result.document() for result in results]
    write_json(chosen.json, document)
    return 1 if any(result.errors() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
