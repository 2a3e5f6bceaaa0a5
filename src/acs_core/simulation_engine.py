"""A container engine in a simulation: what it does one by one, what at once, and how long.

A daemon like Docker's does a part of each operation alone, in the order in which it was asked, and
the rest beside others.  ``EngineModel`` has both parts of each operation and a spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .chance import Chance
from .events import _check_range
from .limits import CREATION_MAX_US


class Operation(IntEnum):
    """What an engine is asked for."""

    CREATE = 0
    REMOVE = 1
    PAUSE = 2
    RESUME = 3


@dataclass(frozen=True, slots=True)
class EngineModel:
    """Times of the operations, in microseconds, and the spread of both parts of each.

    Args:
      *_serial_us: The part that is done one by one: medians.
      *_parallel_us: The part after it that is done beside others: medians.
      sigma: Of the logarithm of each part, 0: always the median; at most 3.

    The defaults are the published daemon: 10 cycles of run and rm a second, alone 500 ms, and 37.6
    of pause and unpause.  Raises: ValueError that names the field, the value and the limit.
    """

    create_serial_us: int = 70_000
    create_parallel_us: int = 350_000
    remove_serial_us: int = 30_000
    remove_parallel_us: int = 50_000
    pause_serial_us: int = 13_300
    pause_parallel_us: int = 12_000
    resume_serial_us: int = 13_300
    resume_parallel_us: int = 12_000
    sigma: float = 0.25

    def __post_init__(self) -> None:
        for operation in Operation:
            for part in ("serial", "parallel"):
                name = f"{operation.name.lower()}_{part}_us"
                _check_range(name, getattr(self, name), 0, CREATION_MAX_US)
        if not 0.0 <= self.sigma <= 3.0:
            raise ValueError(f"sigma is {self.sigma}; it must be in 0..3")

    def parts_us(self, operation: Operation) -> tuple[int, int]:
        """Return the serial and the parallel part of an operation."""
        name = operation.name.lower()
        return getattr(self, f"{name}_serial_us"), getattr(self, f"{name}_parallel_us")

    def creation_us(self) -> int:
        """Return the time of a creation that nothing holds up."""
        return self.create_serial_us + self.create_parallel_us

    def creations_per_s(self) -> float:
        """Return how many creations it manages, 0.0 when nothing of them is done one by one."""
        return 1_000_000.0 / self.create_serial_us if self.create_serial_us else 0.0


class SimulatedEngine:
    """One engine: asked for operations, it says when each is done."""

    def __init__(self, model: EngineModel, chance: Chance) -> None:
        self._parts = [model.parts_us(operation) for operation in Operation]
        self._sigma = model.sigma
        self._chance = chance
        self._free_us = 0
        # How long it was busy with what it does one by one.
        self.busy_us = 0
        self.operations = [0] * len(Operation)

    def ask(self, operation: int, now_us: int) -> int:
        """Return when an Operation that is asked for now will be done.  Cost: O(1)."""
        serial_us, parallel_us = self._parts[operation]
        work_us = int(self._chance.lognormal(serial_us, self._sigma))
        self.operations[operation] += 1
        self.busy_us += work_us
        self._free_us = max(self._free_us, now_us) + work_us
        return self._free_us + int(self._chance.lognormal(parallel_us, self._sigma))
