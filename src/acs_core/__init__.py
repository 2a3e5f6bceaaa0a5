"""The algorithms of the Autonomous Container Scheduler: decide everything, do nothing.

A pure function of its inputs: no I/O, no clock, no threads, no chance.  ``ABI`` changes when
the ``.pxd`` files stop being compatible with extensions that were built against them.
"""

from typing import Final

from . import queue_states as _queue_states
from .containers import ContainerPool, PoolConfig
from .demand import Decision, OpenWhiskRule, RuntimeFitRule, Snapshot, Verdict
from .queue_states import QueueState
from .scheduler import Scheduler, SchedulerConfig
from .semaphores import ForcibleSemaphore, NestedSemaphore, ResizableSemaphore

ABI: Final = 1
COMPILED: Final = not _queue_states.__file__.endswith(".py")

__all__ = [
    "ABI",
    "COMPILED",
    "Scheduler",
    "SchedulerConfig",
    "QueueState",
    "ContainerPool",
    "PoolConfig",
    "Snapshot",
    "Decision",
    "Verdict",
    "OpenWhiskRule",
    "RuntimeFitRule",
    "ForcibleSemaphore",
    "ResizableSemaphore",
    "NestedSemaphore",
]
