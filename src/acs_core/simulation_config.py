"""What a simulated cluster is made of, and what goes wrong in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import limits
from .demand import RuntimeFitRule
from .events import _check_range
from .prewarm import Prewarm
from .simulation_engine import EngineModel
from .snapshot import DemandRule


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and how often.

    Args:
      creation_fails, message_late, message_twice, message_lost: Shares, 0..1.
      late_us: How late a late message is.
      invoker_life_us: Mean time until an invoker dies, 0: it never does.
      lease_us: From a death to when the schedulers hear of it, and it may come back.
    Raises: ValueError that names the field, the value and the limit.
    """

    creation_fails: float = 0.0
    message_late: float = 0.0
    message_twice: float = 0.0
    message_lost: float = 0.0
    late_us: int = 100_000
    invoker_life_us: int = 0
    lease_us: int = 10_000_000

    def __post_init__(self) -> None:
        for name in ("creation_fails", "message_late", "message_twice", "message_lost"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; it must be in 0..1")
        for name in ("late_us", "invoker_life_us", "lease_us"):
            _check_range(name, getattr(self, name), 0, limits.CREATION_MAX_US)


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """The cluster.  Times are in microseconds.

    Args:
      controllers, schedulers, invokers: How many; invoker_mb: the memory of each.
      link_us: One way between two nodes.
      coordination_us: Of a reservation.
      controller_us: Of a controller's processor for an activation; it does one at a time.
      dispatch_us: Of an invoker's processor for an activation; it does one at a time.
      init_us: Of an /init.
      overhead_us: For which a run keeps its slot beyond its duration.
      engine, faults: See there.
      rule: How many containers; the baseline has none.
      namespace_containers_max, keep_alive_us, pause_grace_us, prewarm: As nodes are told.
      push_keep_alive_us, push_pause_grace_us: The same of the baseline's pools.
    Raises: ValueError that names the field, the value and the limit.
    """

    controllers: int = 1
    schedulers: int = 1
    invokers: int = 1
    invoker_mb: int = 4_096
    link_us: int = 200
    coordination_us: int = 2_000
    controller_us: int = 0
    dispatch_us: int = 0
    init_us: int = 10_000
    overhead_us: int = 500
    engine: EngineModel = field(default_factory=EngineModel)
    faults: Faults = field(default_factory=Faults)
    rule: DemandRule = field(default_factory=RuntimeFitRule)
    namespace_containers_max: int = limits.CONTAINERS_MAX
    keep_alive_us: int = limits.KEEP_ALIVE_US
    pause_grace_us: int = limits.PAUSE_GRACE_US
    push_keep_alive_us: int = limits.PUSH_KEEP_ALIVE_US
    push_pause_grace_us: int = limits.PUSH_PAUSE_GRACE_US
    prewarm: tuple[Prewarm, ...] = ()

    def __post_init__(self) -> None:
        for name in ("controllers", "schedulers"):
            _check_range(name, getattr(self, name), 1, 1_000)
        _check_range("invokers", self.invokers, 1, 100_000)
        _check_range("invoker_mb", self.invoker_mb, 1, limits.MEMORY_MAX_MB)
        _check_range("namespace_containers_max", self.namespace_containers_max, 0, limits.COUNT_MAX)
        for name in (
            "link_us",
            "coordination_us",
            "controller_us",
            "dispatch_us",
            "init_us",
            "overhead_us",
            "keep_alive_us",
            "pause_grace_us",
        ):
            _check_range(name, getattr(self, name), 0, limits.CREATION_MAX_US)
