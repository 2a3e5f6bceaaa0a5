"""A cluster in simulated time: the world around what decides.

Nothing of what decides is modelled: ``simulation_pull`` puts schedulers and pools into this world,
``simulation_push`` the baseline's balancers and pools, the objects that nodes run, told what they
would be told.  What is modelled: links (delays), engines (``simulation_engine``), runs (their
durations), and faults.

Everything follows from the configuration, the load and the seed, bit by bit, on every build.
Links keep the order of each direction; a message may be late, or come twice, one right after the
other.  A lost message breaks its invoker's link: then, as when an invoker dies, what it had is
gone, the schedulers hear of it when its lease has ended, and it comes back empty.

Assumed: processors are never short but where ``controller_us`` and ``dispatch_us`` say so;
payloads cost nothing; engines do not slow down with what they hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Protocol

from . import limits
from .chance import Chance
from .effects import (
    Abort,
    AssignSandbox,
    Initialise,
    PauseSandbox,
    PrewarmSandbox,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from .events import (
    Activation,
    Event,
    FailureClass,
    Initialised,
    Outcome,
    QueueSpec,
    RunEnded,
    SandboxFailed,
    SandboxPaused,
    SandboxReady,
    SandboxRemoved,
    SandboxResumed,
)
from .simulation_config import SimulationConfig
from .simulation_engine import Operation, SimulatedEngine
from .simulation_report import Histogram, SimulationReport, percentiles

_NEVER = limits.TIME_MAX_US
_DEVELOPER_ERROR = int(Outcome.DEVELOPER_ERROR)
_CREATE = int(Operation.CREATE)
_REMOVE = int(Operation.REMOVE)
_PAUSE = int(Operation.PAUSE)
_RESUME = int(Operation.RESUME)

# What an entry of the agenda is about.
_ARRIVAL = 0
_AT_INVOKER = 4
_DEATH = 8


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
