"""A cluster in simulated time: the real ``Scheduler`` and ``ContainerPool``, and the world around.

Nothing of what decides is modelled: schedulers and pools are the objects that nodes run, told what
they would be told.  What is modelled: links and the coordination (delays), engines
(``simulation_engine``), runs (their durations), and faults.  ``simulation_push`` has the same world
around the baseline.

Everything follows from the configuration, the load and the seed, bit by bit, on every build.
Links keep the order of each direction; a message may be late, or come twice, one right after the
other.  A lost message breaks its invoker's link: then, as when an invoker dies, what it had is
gone, the schedulers hear of it when its lease has ended, and it comes back empty.

Assumed: processors are never short but where ``controller_us`` and ``dispatch_us`` say so;
payloads cost nothing; all queues of a namespace fit one another (one cap, no weights); a queue's
leader is fixed; coordination never fails; engines do not slow down with what they hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from . import limits
from .chance import Chance
from .containers import ContainerPool, PoolConfig
from .demand import DemandRule, RuntimeFitRule
from .effects import (
    Abort,
    Adopt,
    AssignSandbox,
    Cause,
    Create,
    Deliver,
    Initialise,
    PauseSandbox,
    PrewarmSandbox,
    Reject,
    Release,
    Remove,
    Reserve,
    Resume,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from .events import (
    Activation,
    Adopted,
    Arrived,
    ContainerGone,
    CreationFailed,
    Denied,
    Event,
    FailureClass,
    Initialised,
    InvokerGone,
    InvokerReported,
    Outcome,
    Pulled,
    QueueOpened,
    QueueSpec,
    Reserved,
    RunEnded,
    SandboxFailed,
    SandboxPaused,
    SandboxReady,
    SandboxRemoved,
    SandboxResumed,
    TimeReached,
    _check_range,
)
from .prewarm import Prewarm
from .scheduler import Scheduler, SchedulerConfig
from .simulation_engine import EngineModel, Operation, SimulatedEngine
from .simulation_report import Histogram, SimulationReport, percentiles

_NEVER = limits.TIME_MAX_US
_DEVELOPER_ERROR = int(Outcome.DEVELOPER_ERROR)
_UNKNOWN = int(Cause.UNKNOWN)
_CREATE = int(Operation.CREATE)
_REMOVE = int(Operation.REMOVE)
_PAUSE = int(Operation.PAUSE)
_RESUME = int(Operation.RESUME)

# What an entry of the agenda is about.
_ARRIVAL = 0
_SUBMIT = 1
_TO_INVOKER = 2
_TO_SCHEDULER = 3
_AT_INVOKER = 4
_TICK_INVOKER = 5
_TICK_SCHEDULER = 6
_RESERVE = 7
_DEATH = 8
_LEASE_END = 9
_REPORT = 10


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


class Flight:
    """An activation in the simulation, from its arrival to its end."""

    def __init__(self, action: int, user: int, arrived_us: int, run_us: int) -> None:
        self.action = action
        self.user = user
        self.arrived_us = arrived_us
        self.run_us = run_us
        self.controller = 0
        self.started_us = -1
        self.cold = False
        self.activation: Activation | None = None


class Pool(Protocol):
    """What a cluster needs of the pool of an invoker."""

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply an event."""

    def next_deadline_us(self) -> int | None:
        """Return when time is to be told."""

    def check(self) -> None:
        """Assert what holds."""


class Link:
    """One direction between two nodes: when its last message arrives."""

    def __init__(self) -> None:
        self.last_us = 0


class Host:
    """An invoker from one start to its death: its pool, its engine, and what is up there."""

    def __init__(self, index: int, name: str, pool: Pool, engine: SimulatedEngine) -> None:
        self.index = index
        self.name = name
        self.pool = pool
        self.engine = engine
        self.alive = True
        self.link = Link()
        self.back = Link()
        # By sandbox: since when the engine has it, and its memory.
        self.sandboxes: dict[str, tuple[int, int]] = {}
        self.free_us = 0
        self.armed_us = _NEVER


class Cluster:
    """The part of a simulated cluster that does not depend on who schedules.

    Args:
      actions: What may be asked for; a load names them by their place here.
      seed: Of everything that is drawn.
    """

    def __init__(self, config: SimulationConfig, actions: Sequence[QueueSpec], seed: int) -> None:
        self.config = config
        self.actions = list(actions)
        self.now_us = 0
        self.chance = Chance(seed)
        self.flights: dict[str, Flight] = {}
        self.hosts: list[Host] = []
        self.events = 0
        self._agenda: list[tuple[int, int, int, object, object]] = []
        # The same, in order: of what is on a link for the usual time, which is three of the five
        # entries of an activation, each comes after those before it and needs no heap.
        self._soon: deque[tuple[int, int, int, object, object]] = deque()
        self._serial = 0
        self._ids = 0
        self._arrivals: Iterator[tuple[int, int, int]] = iter(())
        self._users_run_us = 0
        self._users_sigma = 0.0
        self._think_us = 0
        self._link_us = config.link_us
        self._controller_us = config.controller_us
        self._dispatch_us = config.dispatch_us
        self._init_us = config.init_us
        self._overhead_us = config.overhead_us
        faults = config.faults
        self._faulty_links = faults.message_late + faults.message_twice + faults.message_lost > 0
        self._controllers_free_us = [0] * config.controllers
        self._next_controller = 0
        self._warmup_us = 0
        self._arrived = 0
        self._ended = 0
        self._answered = 0
        self._errors = 0
        self._rejected = 0
        self._unknown = 0
        self._cold = 0
        self._started_twice = 0
        self._wait = Histogram()
        self._latency = Histogram()
        self._created = 0
        self._removed = 0
        self._container_us = 0
        self._memory_mb_us = 0
        self._busy_us = 0

    # --- what a caller tells -----------------------------------------------------------------

    def load(self, arrivals: Iterator[tuple[int, int, int]]) -> None:
        """Let work arrive: (when, which action, how long it runs), in the order of time.

        It is read as time goes on.  Raises, also from ``run_until``: ValueError where time goes
        backwards or an action is unknown.
        """
        self._arrivals = iter(arrivals)
        self._next_arrival()

    def load_users(self, users: int, run_us: int, sigma: float = 0.0, think_us: int = 0) -> None:
        """Let each user ask for one action, the n-th for the n-th, again as soon as answered.

        ``run_us`` and ``sigma``: median and spread of the durations, as of an ``EngineModel``.
        They begin one by one within the first 10 ms.
        """
        self._users_run_us = run_us
        self._users_sigma = sigma
        self._think_us = think_us
        for user in range(users):
            self._put(self.now_us + self.chance.below(10_000), _ARRIVAL, None, user)

    def measure_from(self, at_us: int) -> None:
        """Count only what arrives at ``at_us`` or later."""
        self._warmup_us = at_us

    def run_until(self, until_us: int) -> None:
        """Let time pass; may be called again, with a later time.  Cost: O(log n) an event."""
        agenda = self._agenda
        soon = self._soon
        while agenda or soon:
            if not soon or (agenda and agenda[0] < soon[0]):
                if agenda[0][0] > until_us:
                    break
                entry = heappop(agenda)
            else:
                if soon[0][0] > until_us:
                    break
                entry = soon.popleft()
            now_us = entry[0]
            self.now_us = now_us
            self.events += 1
            self.dispatch(entry[2], entry[3], entry[4], now_us)
        self.now_us = max(self.now_us, until_us)

    def pending(self) -> int:
        """Return how many activations are under way."""
        return len(self.flights)

    def exhausted(self) -> bool:
        """Tell whether nothing is under way and nothing more will arrive."""
        return not self.flights and not any(entry[2] == _ARRIVAL for entry in self._agenda)

    def report(self) -> SimulationReport:
        """Return what was measured until now."""
        span_us = max(1, self.now_us - self._warmup_us)
        container_us, memory_mb_us, busy_us = self._container_us, self._memory_mb_us, self._busy_us
        for host in self.hosts:
            busy_us += host.engine.busy_us
            for since_us, memory_mb in host.sandboxes.values():
                container_us += self.now_us - since_us
                memory_mb_us += memory_mb * (self.now_us - since_us)
        flying = [f for f in self.flights.values() if f.arrived_us >= self._warmup_us]
        whole_us = max(1, self.now_us) * self.config.invokers
        return SimulationReport(
            span_s=span_us / 1_000_000,
            arrived=self._arrived,
            ended=self._ended,
            errors=self._errors,
            rejected=self._rejected,
            unknown=self._unknown,
            open=len(flying),
            cold=self._cold,
            tps=self._answered * 1_000_000 / span_us,
            wait=percentiles(self._wait),
            latency=percentiles(self._latency),
            created=self._created,
            removed=self._removed,
            container_s=container_us / 1_000_000,
            memory_mb_s=memory_mb_us / 1_000_000,
            engine_busy_share=busy_us / whole_us,
            started_twice=self._started_twice,
            events=self.events,
        )

    # --- for those who schedule ----------------------------------------------------------------

    def dispatch(self, kind: int, target: object, what: object, now_us: int) -> None:
        """Do what is due; overridden for what is not common.  The kind says what the others are."""
        if kind == _ARRIVAL:
            self._arrive(what, now_us)
        elif kind == _AT_INVOKER:
            self.at_host(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _DEATH:
            self._die(target, now_us)  # type: ignore[arg-type]
        else:
            raise AssertionError(f"nobody knows {kind}")

    def submit(self, flight: Flight, activation_id: str, now_us: int) -> None:
        """Take an activation from a controller; overridden."""
        raise NotImplementedError

    def at_host(self, host: Host, event: Event, now_us: int) -> None:
        """Tell a pool what happened at its host; overridden."""
        raise NotImplementedError

    def new_host(self, index: int, now_us: int) -> Host:
        """Return an invoker without containers; overridden."""
        raise NotImplementedError

    def lost(self, host: Host, now_us: int) -> None:
        """Do what follows from an invoker's end; overridden."""
        raise NotImplementedError

    # --- arrivals and ends ---------------------------------------------------------------------

    def _put(self, at_us: int, kind: int, target: object, what: object) -> None:
        self._serial += 1
        heappush(self._agenda, (at_us, self._serial, kind, target, what))

    def _put_soon(self, at_us: int, kind: int, target: object, what: object) -> None:
        """As ``_put``, for what mostly comes after those that were put so before."""
        if self._soon and self._soon[-1][0] > at_us:
            self._put(at_us, kind, target, what)
            return
        self._serial += 1
        self._soon.append((at_us, self._serial, kind, target, what))

    def _next_arrival(self) -> None:
        for at_us, action, run_us in self._arrivals:
            if at_us < self.now_us or not 0 <= action < len(self.actions) or run_us < 0:
                raise ValueError(
                    f"an arrival is ({at_us}, {action}, {run_us}); it must not be before "
                    f"{self.now_us}, of one of {len(self.actions)} actions, and run 0 us or more"
                )
            self._put(at_us, _ARRIVAL, None, Flight(action, -1, at_us, run_us))
            return

    def _arrive(self, what: object, now_us: int) -> None:
        if isinstance(what, Flight):
            flight = what
            self._next_arrival()
        else:
            run_us = int(self.chance.lognormal(self._users_run_us, self._users_sigma))
            user: int = what  # type: ignore[assignment]
            flight = Flight(user % len(self.actions), user, now_us, run_us)
        self._ids += 1
        activation_id = str(self._ids)
        self.flights[activation_id] = flight
        if now_us >= self._warmup_us:
            self._arrived += 1
        controller = self._next_controller
        flight.controller = controller
        self._next_controller = (controller + 1) % len(self._controllers_free_us)
        at_us = now_us
        if self._controller_us:
            at_us = max(now_us, self._controllers_free_us[controller]) + self._controller_us
            self._controllers_free_us[controller] = at_us
        self.submit(flight, activation_id, at_us)

    def finish(self, activation_id: str, how: int, now_us: int) -> None:
        """End an activation: 0 run, 1 run with an error, 2 rejected, 3 unknown; once."""
        flight = self.flights.pop(activation_id, None)
        if flight is None:
            return
        if how <= 1 and self.now_us >= self._warmup_us:
            self._answered += 1
        if flight.arrived_us >= self._warmup_us:
            if how <= 1:
                self._ended += 1
                self._errors += how
                self._cold += flight.cold
                self._wait.add(max(0, flight.started_us - flight.arrived_us))
                self._latency.add(now_us - flight.arrived_us)
            elif how == 2:
                self._rejected += 1
            else:
                self._unknown += 1
        if flight.user >= 0:
            self._put(now_us + self._think_us, _ARRIVAL, None, flight.user)

    # --- an invoker's node and engine ------------------------------------------------------------

    def node_effect(self, host: Host, effect: object, now_us: int) -> bool:
        """Do what a pool asks its own node for; False: it is for somebody else."""
        if isinstance(effect, Run):
            self._run(host, effect, now_us)
        elif isinstance(effect, Initialise):
            flight = self.flights.get(effect.activation.activation_id)
            if flight is not None:
                flight.cold = True
            done = Initialised(effect.container, self._init_us)
            self._put(now_us + self._init_us, _AT_INVOKER, host, done)
        elif isinstance(effect, StartSandbox):
            self._start(host, effect.container, effect.spec.memory_mb, now_us)
        elif isinstance(effect, PrewarmSandbox):
            self._start(host, effect.container, effect.memory_mb, now_us)
        elif isinstance(effect, AssignSandbox):
            host.sandboxes[effect.container] = host.sandboxes.pop(effect.sandbox)
            self._put(now_us, _AT_INVOKER, host, SandboxReady(effect.container))
        elif isinstance(effect, Remove):
            at_us = host.engine.ask(_REMOVE, now_us)
            self._put(at_us, _AT_INVOKER, host, SandboxRemoved(effect.container))
        elif isinstance(effect, PauseSandbox):
            at_us = host.engine.ask(_PAUSE, now_us)
            self._put(at_us, _AT_INVOKER, host, SandboxPaused(effect.container))
        elif isinstance(effect, ResumeSandbox):
            at_us = host.engine.ask(_RESUME, now_us)
            self._put(at_us, _AT_INVOKER, host, SandboxResumed(effect.container))
        elif isinstance(effect, Abort):
            self.finish(effect.activation_id, 1, now_us + 2 * self._link_us)
            ended = RunEnded(
                effect.container, effect.activation_id, effect.timeout_us, _DEVELOPER_ERROR
            )
            self._put(now_us, _AT_INVOKER, host, ended)
        else:
            return False
        return True

    def _run(self, host: Host, effect: Run, now_us: int) -> None:
        activation_id = effect.activation.activation_id
        flight = self.flights.get(activation_id)
        run_us = self._overhead_us
        at_us = now_us
        if self._dispatch_us:
            at_us = max(now_us, host.free_us) + self._dispatch_us
            host.free_us = at_us
        if flight is not None:
            self._started_twice += flight.started_us >= 0
            flight.started_us = at_us
            run_us += flight.run_us
        ended = RunEnded(effect.container, activation_id, run_us, 0)
        self._put(at_us + run_us, _AT_INVOKER, host, ended)

    def _start(self, host: Host, container: str, memory_mb: int, now_us: int) -> None:
        at_us = host.engine.ask(_CREATE, now_us)
        self._created += 1
        host.sandboxes[container] = (now_us, memory_mb)
        fails = self.config.faults.creation_fails
        done: Event = SandboxReady(container)
        if fails > 0.0 and self.chance.unit() < fails:
            done = SandboxFailed(container, FailureClass.RECOVERABLE, "the simulated engine failed")
        self._put(at_us, _AT_INVOKER, host, done)

    def note(self, host: Host, event: Event, now_us: int) -> None:
        """Account for what happened at a host, before its pool hears of it."""
        if isinstance(event, RunEnded):
            self._run_ended(event, now_us)
        elif isinstance(event, SandboxRemoved):
            self._removed += 1
            self._close(host, event.container, now_us)
        elif isinstance(event, SandboxFailed):
            self._close(host, event.container, now_us)

    def _run_ended(self, event: RunEnded, now_us: int) -> None:
        if event.outcome != _DEVELOPER_ERROR:  # one that was given up has been answered
            self.finish(event.activation_id, 0, now_us + 2 * self._link_us)

    def _close(self, host: Host, container: str, now_us: int) -> None:
        since_us, memory_mb = host.sandboxes.pop(container)
        self._container_us += now_us - since_us
        self._memory_mb_us += memory_mb * (now_us - since_us)

    # --- links and deaths ------------------------------------------------------------------------

    def send(
        self, link: Link, host: Host, kind: int, target: object, what: object, now_us: int
    ) -> None:
        """Put a message of or to a host on its link."""
        at_us = now_us + self._link_us
        copies = 1
        if self._faulty_links:
            faults = self.config.faults
            draw = self.chance.unit()
            if draw < faults.message_lost:
                self._put(now_us, _DEATH, host, None)
                return
            draw -= faults.message_lost
            if draw < faults.message_twice:
                copies = 2
            elif draw < faults.message_twice + faults.message_late:
                at_us += faults.late_us
        if at_us < link.last_us:
            at_us = link.last_us
        link.last_us = at_us
        if copies == 1 and at_us == now_us + self._link_us:
            self._put_soon(at_us, kind, target, what)
            return
        for _ in range(copies):
            self._put(at_us, kind, target, what)

    def _begin(self, index: int, now_us: int) -> Host:
        """Start an invoker, and settle when it will die."""
        host = self.new_host(index, now_us)
        life_us = self.config.faults.invoker_life_us
        if life_us:
            self._put(now_us + int(self.chance.exponential(life_us)), _DEATH, host, None)
        return host

    def _die(self, host: Host, now_us: int) -> None:
        if not host.alive:
            return
        host.alive = False
        self._busy_us += host.engine.busy_us
        for container in list(host.sandboxes):
            self._removed += 1
            self._close(host, container, now_us)
        host.engine = SimulatedEngine(self.config.engine, self.chance)
        self.lost(host, now_us)


class PullCluster(Cluster):
    """A cluster of ``Scheduler`` and ``ContainerPool``, whose containers pull."""

    def __init__(self, config: SimulationConfig, actions: Sequence[QueueSpec], seed: int) -> None:
        super().__init__(config, actions, seed)
        self._places = {spec.queue: place for place, spec in enumerate(self.actions)}
        self._epoch = 0
        self._schedulers: list[Scheduler] = []
        self._armed_us: list[int] = []
        # By container its scheduler, for ever: what it was sent may come back after its end.
        self._owner: dict[str, int] = {}
        # The coordination: by container its namespace, invoker, memory and scheduler.
        self._granted: dict[str, tuple[str, int, int, int]] = {}
        self._namespace_counts: dict[str, int] = {}
        self._used_mb = [[0] * config.invokers for _ in range(config.schedulers)]
        self._host_of = {f"i{index}": index for index in range(config.invokers)}
        for index in range(config.schedulers):
            self._schedulers.append(
                Scheduler(
                    SchedulerConfig(
                        name=f"s{index}",
                        rule=config.rule,
                        namespace_containers_max=config.namespace_containers_max,
                    )
                )
            )
            self._armed_us.append(_NEVER)
        for index in range(config.invokers):
            self.hosts.append(self._begin(index, 0))
            self._report_host(index)
        if config.schedulers > 1:
            self._put(1_000_000, _REPORT, None, None)

    def dispatch(self, kind: int, target: object, what: object, now_us: int) -> None:
        """Do what is due."""
        if kind == _TO_INVOKER:
            self.at_host(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _TO_SCHEDULER:
            self._told(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _SUBMIT:
            self._submitted(what, now_us)  # type: ignore[arg-type]
        elif kind == _TICK_SCHEDULER:
            self._tick(target, now_us)  # type: ignore[arg-type]
        elif kind == _TICK_INVOKER:
            self._tick_host(target, now_us)  # type: ignore[arg-type]
        elif kind == _RESERVE:
            self._reserve(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _REPORT:
            for index in range(len(self.hosts)):
                if self.hosts[index].alive:
                    self._report_host(index)
            self._put(now_us + 1_000_000, _REPORT, None, None)
        elif kind == _LEASE_END:
            self._lease_ended(target, now_us)  # type: ignore[arg-type]
        else:
            Cluster.dispatch(self, kind, target, what, now_us)

    def check(self) -> None:
        """Assert the invariants of all schedulers and pools.  Cost: O(everything)."""
        for scheduler in self._schedulers:
            scheduler.check()
        for host in self.hosts:
            if host.alive:
                host.pool.check()

    # --- schedulers ------------------------------------------------------------------------------

    def submit(self, flight: Flight, activation_id: str, now_us: int) -> None:
        """Send an activation to the scheduler of its queue."""
        flight.activation = Activation(activation_id, b"", flight.arrived_us)
        self._put_soon(now_us + self._link_us, _SUBMIT, None, flight)

    def _submitted(self, flight: Flight, now_us: int) -> None:
        spec = self.actions[flight.action]
        index = flight.action % len(self._schedulers)
        scheduler = self._schedulers[index]
        if not scheduler.has_queue(spec.queue):
            self._epoch += 1
            self._step(index, QueueOpened(spec, self._epoch), now_us)
        self._step(index, Arrived(spec.queue, flight.activation), now_us)  # type: ignore[arg-type]

    def _told(self, index: int, event: Event, now_us: int) -> None:
        if isinstance(event, (ContainerGone, CreationFailed)):
            self._give_back(event.container)
        self._step(index, event, now_us)

    def _step(self, index: int, event: Event, now_us: int) -> None:
        scheduler = self._schedulers[index]
        for effect in scheduler.step(event, now_us):
            if isinstance(effect, Deliver):
                self._deliver(effect, now_us)
            else:
                self._rare_effect(index, effect, now_us)
        due_us = scheduler.next_deadline_us()
        if due_us is not None and due_us < self._armed_us[index]:
            self._armed_us[index] = due_us
            self._put(max(due_us, now_us), _TICK_SCHEDULER, index, None)

    def _deliver(self, effect: Deliver, now_us: int) -> None:
        host = self.hosts[self._host_of[effect.invoker]]
        self.send(host.link, host, _TO_INVOKER, host, effect, now_us)

    def _rare_effect(self, index: int, effect: object, now_us: int) -> None:
        # Throttles and closed queues concern nobody here; nothing is forwarded or given back
        # unused, as a queue has one leader and is closed by itself alone.
        if isinstance(effect, (Create, Resume, Release)):
            if isinstance(effect, Create):
                self._owner[effect.container] = index
            host = self.hosts[self._host_of[effect.invoker]]
            self.send(host.link, host, _TO_INVOKER, host, effect, now_us)
        elif isinstance(effect, Adopt):
            asked = self.hosts
            if effect.invoker:  # it has joined; the others told when the queue opened
                asked = [self.hosts[self._host_of[effect.invoker]]]
            for host in asked:
                self.send(host.link, host, _TO_INVOKER, host, effect, now_us)
        elif isinstance(effect, Reserve):
            self._put(now_us + self.config.coordination_us, _RESERVE, index, effect)
        elif isinstance(effect, Reject):
            how = 3 if effect.cause == _UNKNOWN else 2
            self.finish(effect.activation.activation_id, how, now_us + self._link_us)

    def _tick(self, index: int, now_us: int) -> None:
        if self._armed_us[index] <= now_us:
            self._armed_us[index] = _NEVER
            self._step(index, TimeReached(), now_us)

    # --- the coordination ------------------------------------------------------------------------

    def _reserve(self, index: int, effect: Reserve, now_us: int) -> None:
        granted = []
        for place in effect.places:
            host = self._host_of[place.invoker]
            count = self._namespace_counts.get(effect.namespace, 0)
            used_mb = sum([used[host] for used in self._used_mb])
            if (
                count < self.config.namespace_containers_max
                and used_mb + effect.memory_mb <= self.config.invoker_mb
                and self.hosts[host].alive
            ):
                self._namespace_counts[effect.namespace] = count + 1
                self._used_mb[index][host] += effect.memory_mb
                entry = (effect.namespace, host, effect.memory_mb, index)
                self._granted[place.container] = entry
                granted.append(place.container)
        answer: Event = Denied(effect.queue, effect.serial, "no room")
        if granted:
            answer = Reserved(effect.queue, effect.serial, tuple(granted))
        self._step(index, answer, now_us)

    def _give_back(self, container: str) -> None:
        entry = self._granted.pop(container, None)
        if entry is not None:
            namespace, host, memory_mb, index = entry
            self._namespace_counts[namespace] -= 1
            self._used_mb[index][host] -= memory_mb

    def _report_host(self, host: int) -> None:
        model = self.config.engine
        for index in range(len(self._schedulers)):
            others = [used[host] for used in self._used_mb]
            report = InvokerReported(
                f"i{host}",
                self.config.invoker_mb,
                sum(others) - others[index],
                model.creation_us(),
                model.creations_per_s(),
            )
            self._step(index, report, self.now_us)

    # --- invokers --------------------------------------------------------------------------------

    def new_host(self, index: int, now_us: int) -> Host:
        """Return an invoker without containers."""
        config = self.config
        name = f"i{index}"
        pool = ContainerPool(
            PoolConfig(
                name, config.invoker_mb, config.keep_alive_us, config.pause_grace_us, config.prewarm
            )
        )
        host = Host(index, name, pool, SimulatedEngine(config.engine, self.chance))
        self._arm(host, now_us)
        return host

    def at_host(self, host: Host, event: Event, now_us: int) -> None:
        """Tell a pool something, and do what it asks for."""
        if not host.alive:
            return
        self.note(host, event, now_us)
        pool = host.pool
        for effect in pool.step(event, now_us):
            if isinstance(effect, Pulled):
                self._pulled(host, effect, now_us)
            elif not self.node_effect(host, effect, now_us):
                if isinstance(effect, Adopted):
                    index = self._places[effect.queue] % len(self._schedulers)
                else:
                    index = self._owner[effect.container]  # type: ignore[attr-defined]
                self.send(host.back, host, _TO_SCHEDULER, index, effect, now_us)
        self._arm(host, now_us)

    def _pulled(self, host: Host, effect: Pulled, now_us: int) -> None:
        index = self._owner[effect.container]
        self.send(host.back, host, _TO_SCHEDULER, index, effect, now_us)

    def _arm(self, host: Host, now_us: int) -> None:
        due_us = host.pool.next_deadline_us()
        if due_us is not None and due_us < host.armed_us:
            host.armed_us = due_us
            self._put(max(due_us, now_us), _TICK_INVOKER, host, None)

    def _tick_host(self, host: Host, now_us: int) -> None:
        if host.armed_us <= now_us:
            host.armed_us = _NEVER
            self.at_host(host, TimeReached(), now_us)

    def lost(self, host: Host, now_us: int) -> None:
        """Let the schedulers hear of it when the lease has ended."""
        self._put(now_us + self.config.faults.lease_us, _LEASE_END, host, None)

    def _lease_ended(self, host: Host, now_us: int) -> None:
        held = [name for name, entry in self._granted.items() if entry[1] == host.index]
        for container in held:
            self._give_back(container)
        for index in range(len(self._schedulers)):
            self._step(index, InvokerGone(host.name), now_us)
        self.hosts[host.index] = self._begin(host.index, now_us)
        self._report_host(host.index)
