"""Six faults of ``make faults``, with less load and shorter: what they break stays whole.

How fast things are back is measured there; here that they are back at all.
"""

import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.faults.catalogue import catalogue
from cluster.faults.evidence import RunLog, Verdict
from cluster.faults.network import Network, NetworkMissing
from cluster.faults.runner import Plan, suffer
from cluster.faults.steady import MIX, Sent
from cluster.faults.world import wall_clock
from models import Outside
from requirements import missing

from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import TraceReader
from acs_node.cluster.etcd_process import EtcdMissing

PLAN = Plan(
    rate=60.0,
    lease_s=3,
    warm_s=2.0,
    before_s=1.0,
    after_s=3.0,
    load_min_s=0.0,
    accepted_min=300,
    # Nothing of 5 s: the end of a load is waited for.
    mix=[replace(kind, ms=min(kind.ms, 1_500)) for kind in MIX],
    invokers=2,
)

SIX = (
    ("kill -9 of s0, i0", "frames"),
    ("SIGSTOP of c0, longer than its lease", "grpc"),
    ("SIGSTOP of s0, longer than its lease", "frames"),
    ("etcd stopped for 5 s", "grpc"),
    ("no packets s0 -> i0", "frames"),
    ("no packets i0 <-> e0", "grpc"),
)


def observe(trace: Path) -> int:
    """Have the model that watches the simulation watch a scheduler's life; return its steps."""
    if not trace.stat().st_size:
        return 0  # killed before anything of it was written
    steps = 0
    with open(trace, encoding="ascii") as lines:
        reader = TraceReader(lines, cut=True)
        assert isinstance(reader.config, SchedulerConfig)
        scheduler = Scheduler(reader.config)
        outside = Outside(scheduler, reader.config)
        for step in reader:
            effects = scheduler.step(step.event, step.at_us)
            outside.saw(step.event, step.at_us, effects)
            steps += 1
    return steps


@pytest.mark.parametrize(("name", "links"), SIX)
async def test_nothing_is_lost_or_run_twice(name: str, links: str) -> None:
    (fault,) = (fault for fault in catalogue() if fault.name == name)
    # Not below tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acsf-") as folder:
        try:
            row = await suffer(fault, replace(PLAN, links=links), Path(folder))
        except EtcdMissing as error:
            missing("etcd", str(error))
        except NetworkMissing as error:
            missing("netns", str(error))
        observed = sum(observe(file) for file in Path(folder).glob("traces/*.trace"))
    print(row)
    assert row.broken == []
    assert row.verdict.ended == row.verdict.accepted
    assert observed == row.steps > 300
    assert row.after > 0


# --- the witnesses can tell --------------------------------------------------------------------


def log(tmp_path: Path, *lines: str) -> RunLog:
    path = tmp_path / "runs"
    path.write_text("".join(f"{line}\n" for line in lines))
    return RunLog(path)


def row(success: bool, result: object) -> tuple[int, object]:
    return 2, {"success": success, "result": result}


def test_what_was_lost_or_never_ran_or_is_another_ones_is_found(tmp_path: Path) -> None:
    runs = log(tmp_path, "S a c1 1 1.0", "E a c1 1 2.0", "S b c1 1 3.0", "E b c1 1 4.0")
    sent = {id_: Sent(n, 0.0, 202) for n, id_ in enumerate("abcdefg")}
    rows = {
        "a": row(True, {"n": 0}),
        "b": row(True, {"n": 7}),
        "c": row(True, {"n": 2}),
        "d": (0, None),
        "f": row(False, {"error": "it is not known whether it ran"}),
        "g": row(False, {"error": "no"}),
    }
    verdict = Verdict.of(sent, rows, runs)
    assert (verdict.accepted, verdict.ended, verdict.unknown) == (7, 5, 1)
    assert (verdict.lost, verdict.open) == (["d", "e"], 1)
    assert (verdict.wrong, verdict.unrun) == (["b"], ["c"])
    assert verdict.failures == {"no": 1}
    assert verdict.twice == []


def test_what_ran_twice_or_beside_another_one_is_found(tmp_path: Path) -> None:
    runs = log(
        tmp_path,
        "S a c1 1 1.0",
        "S a c2 1 1.5",
        "S b c1 1 2.0",
        "E a c1 1 3.0",
        "E b c1 1 4.0",
        "E a c2 1 4.0",
        "S c c3 2 2.0",
        "E c c3 2 4.0",
    )
    assert runs.twice() == ["a"]
    assert runs.shared() == 1
    assert runs.running_max() == 4
    assert runs.running_max(frozenset({2})) == 3


def test_when_throughput_is_back_is_told(tmp_path: Path) -> None:
    starts = [n / 10 for n in range(100)] + [15 + n / 10 for n in range(100)]
    runs = log(tmp_path, *(f"S a{n} c 1 {at}" for n, at in enumerate(starts)))
    assert runs.rate(0, 10) == 10
    back_s = runs.back_s(10.0, 25.0, 9.0)
    assert back_s is not None
    assert 4 < back_s < 5.5
    assert runs.back_s(10.0, 16.0, 9.0) is None


def test_packets_are_lost_one_way_and_then_no_more() -> None:
    import socket

    try:
        network = Network()
    except NetworkMissing as error:
        missing("netns", str(error))
    try:
        one, other = network.add("one"), network.add("other")

        def at(name: str, host: str) -> socket.socket:
            made = network.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made.bind((host, 5_000))
            made.settimeout(0.2)
            return made

        with at("one", one.address) as first, at("other", other.address) as second:

            def arrives(
                sender: socket.socket, receiver: socket.socket, to: str, tries: int = 100
            ) -> bool:
                """Tell whether one of the datagrams comes through; the first may take its time."""
                for _ in range(tries):
                    sender.sendto(b"x", (to, 5_000))
                    try:
                        receiver.recv(1)
                        return True
                    except TimeoutError:
                        continue
                return False

            assert arrives(first, second, other.address)
            network.cut("one", "other")
            assert not arrives(first, second, other.address, tries=5)
            assert arrives(second, first, one.address)
            network.heal()
            assert arrives(first, second, other.address)
    finally:
        network.close()


def test_a_process_has_a_wall_clock_of_its_own_and_every_other_clock_stays(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("q", 3_600))
    code = """
import struct, sys, threading, time
print(time.time(), time.monotonic(), flush=True)
with open(sys.argv[1], "r+b") as file:
    file.write(struct.pack("q", -3600))
begun_s = time.monotonic()
time.sleep(0.01)
threading.Event().wait(0.01)
print(time.time(), time.monotonic() - begun_s < 1_000)
"""
    environment = {"LD_PRELOAD": str(wall_clock(tmp_path)), "ACS_WALL_CLOCK": str(offset)}
    command = [sys.executable, "-c", code, str(offset)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (ahead, monotonic_s), (behind, waited) = (line.split() for line in said.stdout.splitlines())
    assert 1_800 < float(ahead) - time.time() < 5_400
    assert abs(float(monotonic_s) - time.monotonic()) < 1_800
    assert -5_400 < float(behind) - time.time() < -1_800
    assert waited == "True"
