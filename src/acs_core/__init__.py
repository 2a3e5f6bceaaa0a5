"""The algorithms of the Autonomous Container Scheduler: decide everything, do nothing.

A pure function of its inputs: no I/O, no clock, no threads, no chance.  ``ABI`` changes when
the ``.pxd`` files stop being compatible with extensions that were built against them.
"""

from .abi import ABI, COMPILED
from .containers import ContainerPool, PoolConfig
from .demand import Decision, OpenWhiskRule, RuntimeFitRule, Snapshot, Verdict
from .queue_states import QueueState
from .scheduler import Scheduler, SchedulerConfig
from .semaphores import ForcibleSemaphore, NestedSemaphore, ResizableSemaphore

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
