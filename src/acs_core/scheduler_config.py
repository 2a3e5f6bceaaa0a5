"""What a scheduler is told once, and the error of a queue that it does not have."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import limits
from .demand import RuntimeFitRule
from .snapshot import DemandRule


class UnknownQueue(KeyError):
    """The event names a queue that is not open here; nothing changed."""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What a scheduler is told once.

    ``name`` starts every container id, so it must be new for each start of a node.  Bounds and
    durations are explained in ``limits``.  With ``report_decisions`` each decision is an effect;
    without ``give_back`` a queue keeps the containers that it has work for, as in the original;
    without ``throttle_by_wait`` it takes in work that would expire, as there.  ``shadow`` is asked
    for each decision as well and obeyed in none; see ``shadow``.

    Raises: ValueError that names the field, the value and the limit.
    """

    name: str = "scheduler"
    rule: DemandRule = field(default_factory=RuntimeFitRule)
    waiting_max: int = limits.WAITING_MAX
    waiting_low_fraction: float = limits.WAITING_LOW_FRACTION
    wait_max_us: int = limits.WAIT_MAX_US
    namespace_containers_max: int = limits.CONTAINERS_MAX
    namespace_reserve: int = limits.CALLS_RESERVE
    decision_interval_us: int = limits.DECISION_INTERVAL_US
    backlog_interval_us: int = limits.BACKLOG_INTERVAL_US
    idle_grace_us: int = limits.IDLE_GRACE_US
    stop_grace_us: int = limits.STOP_GRACE_US
    retry_min_us: int = limits.RETRY_MIN_US
    retry_max_us: int = limits.RETRY_MAX_US
    reserve_answer_us: int = limits.RESERVE_ANSWER_US
    create_answer_us: int = limits.CREATE_ANSWER_US
    report_decisions: bool = False
    give_back: bool = True
    throttle_by_wait: bool = True
    shadow: DemandRule | None = None

    def __post_init__(self) -> None:
        # A look that is due again at once would never let ``step`` return.
        for name in (
            "waiting_max",
            "wait_max_us",
            "decision_interval_us",
            "idle_grace_us",
            "stop_grace_us",
            "retry_min_us",
            "retry_max_us",
            "reserve_answer_us",
            "create_answer_us",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= limits.TIME_MAX_US:
                raise ValueError(f"{name} is {value}; it must be in 1..{limits.TIME_MAX_US}")
        for name in ("namespace_containers_max", "namespace_reserve", "backlog_interval_us"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= limits.TIME_MAX_US:
                raise ValueError(f"{name} is {value}; it must be in 0..{limits.TIME_MAX_US}")
        for name in ("waiting_max", "namespace_containers_max", "namespace_reserve"):
            value = getattr(self, name)
            if value > limits.COUNT_MAX:  # a snapshot for the rule could not be made
                raise ValueError(f"{name} is {value}; it must be at most {limits.COUNT_MAX}")
        if not 0.0 <= self.waiting_low_fraction < 1.0:
            raise ValueError(
                f"waiting_low_fraction is {self.waiting_low_fraction}; it must be in 0..1, below 1"
            )
