"""How long one step takes at many queues with much waiting: p50, p99, p99.9 and the maximum.

Each kind of event apart, the collector on, timer ticks included.  Two clocks are read around each
step: the wall's, and the thread's CPU clock, which leaves out that other programs had the
processor.  Reading them costs about 0.5 us, which is in the figures.

A turn is an arrival at a uniformly random queue and the pull of its container, with what ended,
what started and a free slot; so what waits stays as it was.  Now and then an activation is
cancelled or given back unstarted, an invoker reports, a limit changes.  The time of the core goes
by with the turns (``--turn-us``), and a tick is sent whenever one is asked for.

A shared machine stops a program for milliseconds, on the CPU clock as well.  Steps and collections
are the same in each run with one seed, so what the core itself takes comes again at the same step
and what the machine takes does not: ``--save FILE`` keeps the times of a run, ``--with FILE``,
in other runs, takes of each step the least that any run had, and of each collection likewise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import random
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import acs_core
from acs_core.effects import Deliver
from acs_core.events import (
    Activation,
    Adopted,
    Arrived,
    Cancelled,
    Completion,
    Event,
    Held,
    InvokerReported,
    LimitsChanged,
    Pulled,
    QueueOpened,
    QueueSpec,
    Returned,
    TimeReached,
)
from acs_core.scheduler import Scheduler, SchedulerConfig

EPOCH = 1
RUN_US = 2_000
NAMESPACES = 100
CANCEL_EVERY = 50
RETURN_EVERY = 50
REPORT_EVERY = 20_000
LIMITS_EVERY = 200_000
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class House:
    """A scheduler with queues, a busy container each, and what waits; every step is timed."""

    def __init__(self, queue_count: int, waiting_each: int) -> None:
        self.scheduler = Scheduler(SchedulerConfig(namespace_containers_max=2 * queue_count))
        self.queue_count = queue_count
        self.now_us = 1
        self.made = 0
        self.wall_ns: dict[str, array[int]] = {}
        self.cpu_ns: dict[str, array[int]] = {}
        self.queues = [f"guest/action{index}@1" for index in range(queue_count)]
        self.containers = [f"container-{index}" for index in range(queue_count)]
        self.running = [""] * queue_count
        step = self.scheduler.step
        step(InvokerReported("invoker0", 2 * queue_count), 1)
        for index, (queue, container) in enumerate(zip(self.queues, self.containers, strict=True)):
            spec = QueueSpec(queue, f"guest{index % NAMESPACES}", queue, 1, memory_mb=1)
            step(QueueOpened(spec, EPOCH, RUN_US), 1)
            step(Adopted("invoker0", queue, EPOCH, (Held(container, True),)), 1)
            step(Pulled(container, EPOCH, 1), 1)
            for _ in range(1 + waiting_each):
                for effect in step(self.arrival(queue), 1):
                    assert isinstance(effect, Deliver), effect
                    self.running[index] = effect.activation.activation_id
        self.counted = self.scheduler.counts()

    def arrival(self, queue: str) -> Arrived:
        self.made += 1
        return Arrived(queue, Activation(f"{self.made:032x}", b"{}", self.now_us))

    def timed(self, event: Event) -> list[object]:
        """Apply the event and note how long that took."""
        now_us = self.now_us
        kind = type(event).__name__
        cpu_ns = time.thread_time_ns()
        wall_ns = time.perf_counter_ns()
        effects = self.scheduler.step(event, now_us)
        wall_ns = time.perf_counter_ns() - wall_ns
        cpu_ns = time.thread_time_ns() - cpu_ns
        walls = self.wall_ns.get(kind)
        if walls is None:
            walls = self.wall_ns[kind] = array("q")
            self.cpu_ns[kind] = array("q")
        walls.append(wall_ns)
        self.cpu_ns[kind].append(cpu_ns)
        return effects

    def pull(self, index: int, free_slots: int = 1) -> None:
        """Let the container report the end of what runs there, and offer a slot."""
        ended = self.running[index]
        event = Pulled(
            self.containers[index], EPOCH, free_slots, (ended,), (Completion(ended, 0, RUN_US, 0),)
        )
        self.running[index] = ""
        self.note(index, self.timed(event))

    def note(self, index: int, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                self.running[index] = effect.activation.activation_id

    def run(self, steps: int, turn_us: int, seed: int) -> None:
        """Take turns until so many steps were made."""
        rng = random.Random(seed)
        scheduler = self.scheduler
        turn = 0
        done = sum(len(times) for times in self.wall_ns.values()) + steps
        while sum(len(times) for times in self.wall_ns.values()) < done:
            for _ in range(1_000):
                turn += 1
                self.now_us += turn_us
                index = rng.randrange(self.queue_count)
                arrival = self.arrival(self.queues[index])
                self.note(index, self.timed(arrival))
                if turn % CANCEL_EVERY == 0:
                    # Another arrival takes its place.
                    self.timed(Cancelled(arrival.activation.activation_id))
                    self.note(index, self.timed(self.arrival(self.queues[index])))
                if turn % RETURN_EVERY == 1:
                    unstarted = (self.running[index],)
                    self.timed(Returned(self.containers[index], EPOCH, unstarted))
                    self.note(index, self.timed(Pulled(self.containers[index], EPOCH, 1)))
                self.pull(index)
                if turn % REPORT_EVERY == 0:
                    self.timed(InvokerReported("invoker0", 2 * self.queue_count))
                if turn % LIMITS_EVERY == 0:
                    namespace = f"guest{turn // LIMITS_EVERY % NAMESPACES}"
                    self.timed(LimitsChanged(namespace, 2 * self.queue_count))
                due_us = scheduler.next_deadline_us()
                if due_us is not None and due_us <= self.now_us:
                    self.timed(TimeReached())

    def check(self) -> None:
        """Assert that as much waits and runs as before, and that nothing was lost."""
        counts = self.scheduler.counts()
        for name in ("waiting", "delivered"):
            assert counts[name] == self.counted[name], (name, counts)
        assert counts["rejected"] == len(self.wall_ns.get("Cancelled", ())), counts
        self.scheduler.check()


def quantiles_us(times_ns: array[int]) -> dict[str, float]:
    """Return the quantiles and the maximum in microseconds."""
    ordered = sorted(times_ns)
    found = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000
        for name, share in QUANTILES.items()
    }
    found["max"] = ordered[-1] / 1000
    return found


class Collections:
    """The CPU time of each run of the collector while it is entered, in order."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.cpu_ns = array("q")

    def __enter__(self) -> Collections:
        gc.callbacks.append(self._told)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.cpu_ns.append(-time.thread_time_ns())
        else:
            self.cpu_ns[-1] += time.thread_time_ns()
            self.generations.append(info["generation"])


Times: TypeAlias = "dict[str, array[int]]"
"""Nanoseconds of each step, or collection, in order, by what it was."""


def least(times: Times, others: Times) -> Times:
    """Return for each step the lesser time of two runs of the same steps."""
    if {kind: len(each) for kind, each in times.items()} != {
        kind: len(each) for kind, each in others.items()
    }:
        raise SystemExit("step_latency: a saved run had other steps: same options, same core?")
    return {kind: array("q", map(min, each, others[kind])) for kind, each in times.items()}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="how long one step takes")
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=100_000, help="activations, in all")
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--turn-us", type=int, default=5, help="of the core's time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    parser.add_argument("--save", type=Path, metavar="FILE", help="for the times of this run")
    parser.add_argument(
        "--with", dest="saved", type=Path, nargs="*", default=[], metavar="FILE", help="other runs"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options().parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0" and (chosen.save or chosen.saved):
        # The same hashes in every run.
        os.execve(
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    house = House(chosen.queues, chosen.waiting // chosen.queues)
    gc.collect()
    with Collections() as collections:
        house.run(chosen.steps, chosen.turn_us, chosen.seed)
    house.check()
    wall_ns, cpu_ns = house.wall_ns, house.cpu_ns
    cpu_ns["collections"] = collections.cpu_ns
    if chosen.save is not None:
        chosen.save.write_bytes(pickle.dumps((wall_ns, cpu_ns)))
    for saved in chosen.saved:
        wall, cpu = pickle.loads(saved.read_bytes())
        wall_ns, cpu_ns = least(wall_ns, wall), least(cpu_ns, cpu)
    collecting_ns = cpu_ns.pop("collections")

    steps = sum(len(times) for times in wall_ns.values())
    build = "compiled" if acs_core.COMPILED else "plain"
    waiting = house.counted["waiting"]
    runs = 1 + len(chosen.saved)
    print(f"{build} core, {chosen.queues:,} queues, {waiting:,} wait: {steps:,} steps, {runs} runs")
    each = [collections.generations.count(generation) for generation in range(3)]
    longest_us = max(collecting_ns, default=0) / 1000
    print(f"collections of each generation: {each}, the longest {longest_us:,.0f} us of CPU")
    kinds = {}
    for kind, walls in wall_ns.items():
        wall_us, cpu_us = quantiles_us(walls), quantiles_us(cpu_ns[kind])
        kinds[kind] = {"steps": len(walls), "wall_us": wall_us, "cpu_us": cpu_us}
        for clock, found in (("wall", wall_us), ("cpu", cpu_us)):
            shown = "  ".join(f"{name} {value:9,.1f}" for name, value in found.items())
            print(f"{kind:16} {len(walls):10,} {clock:4}  {shown} us", flush=True)
    if chosen.json is not None:
        document = {
            "build": build,
            "queues": chosen.queues,
            "waiting": waiting,
            "steps": steps,
            "runs": runs,
            "turn_us": chosen.turn_us,
            "collections": each,
            "longest_collection_us": longest_us,
            "kinds": kinds,
        }
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
