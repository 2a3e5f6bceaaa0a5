"""Bytes that a waiting activation and an idle queue take in the core.

Everything is allocated with malloc (``PYTHONMALLOC=malloc``, set by restarting itself), and
``mallinfo2`` says how much is handed out, heads and rounding of the allocator included; tracemalloc
would not see what C allocates.  The difference over many objects is divided by their number, so
shares in tables that grow by doubling are in it: it is taken at several numbers and the worst is
shown.  Needs glibc 2.33 or later.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import acs_core
from acs_core.events import (
    Activation,
    Adopted,
    Arrived,
    Held,
    InvokerReported,
    Pulled,
    QueueOpened,
    QueueSpec,
)
from acs_core.scheduler import Scheduler, SchedulerConfig

PAYLOAD = b"{}"
QUEUES = [10_000, 15_000, 22_000, 30_000]
WAITING = [50_000, 90_000, 100_000, 180_000]


class MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def allocated() -> int:
    """Return the bytes that malloc has handed out: from the heap, and mapped for large blocks."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def new_scheduler() -> Scheduler:
    scheduler = Scheduler(SchedulerConfig(waiting_max=10**6, namespace_containers_max=10**6))
    scheduler.step(InvokerReported("invoker0", 10**6), 1)
    return scheduler


def open_queue(scheduler: Scheduler, index: int, warm: bool) -> None:
    """Open a queue with names of its own; a warm one has an idle container that has run once."""
    queue = f"guest/action{index}@1"
    spec = QueueSpec(queue, "guest", f"action{index}", 1, memory_mb=1)
    scheduler.step(QueueOpened(spec, 1, 2_000), 1)
    held = (Held(f"container-{index}", True),) if warm else ()
    scheduler.step(Adopted("invoker0", queue, 1, held), 1)
    if warm:
        scheduler.step(Pulled(f"container-{index}", 1, 1), 1)


def per_queue(count: int, warm: bool) -> float:
    """Return the bytes for each of so many queues without work."""
    scheduler = new_scheduler()
    before = allocated()
    for index in range(count):
        open_queue(scheduler, index, warm)
    return (allocated() - before) / count


def per_waiting(count: int, queues: int = 100) -> float:
    """Return the bytes for each of so many waiting activations, id and index in, payload out."""
    scheduler = new_scheduler()
    for index in range(queues):
        open_queue(scheduler, index, False)
    before = allocated()
    for index in range(count):
        activation = Activation(f"{index:032x}", PAYLOAD, 1)
        scheduler.step(Arrived(f"guest/action{index % queues}@1", activation), 1)
    assert scheduler.counts()["waiting"] == count
    return (allocated() - before) / count


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="bytes per waiting activation and per queue")
    options.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    chosen = options.parse_args(arguments)
    if os.environ.get("PYTHONMALLOC") != "malloc":
        environment = {**os.environ, "PYTHONMALLOC": "malloc"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    results = {
        "waiting activation": {str(n): per_waiting(n) for n in WAITING},
        "idle queue": {str(n): per_queue(n, warm=False) for n in QUEUES},
        "idle queue with a container": {str(n): per_queue(n, warm=True) for n in QUEUES},
    }
    print("compiled core" if acs_core.COMPILED else "plain core")
    for name, sizes in results.items():
        shown = "  ".join(f"{int(n):,}: {size:,.0f}" for n, size in sizes.items())
        print(f"{name:28} {max(sizes.values()):7,.0f} bytes  ({shown})")
    if chosen.json is not None:
        document = {"compiled": acs_core.COMPILED, "bytes": results}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
