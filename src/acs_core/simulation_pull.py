"""The world of ``simulation`` around schedulers and pools: the cluster whose containers pull.

Assumed besides what ``simulation`` assumes: all queues of a namespace fit one another (one cap, no
weights); a queue's leader is fixed; coordination never fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import limits
from .containers import ContainerPool, PoolConfig
from .effects import (
    Adopt,
    Cause,
    Create,
    Deliver,
    Reject,
    Release,
    Reserve,
    Resume,
)
from .events import (
    Activation,
    Adopted,
    Arrived,
    ContainerGone,
    CreationFailed,
    Denied,
    Event,
    InvokerGone,
    InvokerReported,
    Pulled,
    QueueOpened,
    QueueSpec,
    Reserved,
    TimeReached,
)
from .scheduler import Scheduler, SchedulerConfig
from .simulation import Cluster, Flight, Host
from .simulation_config import SimulationConfig
from .simulation_engine import SimulatedEngine

_NEVER = limits.TIME_MAX_US
_UNKNOWN = int(Cause.UNKNOWN)

# What an entry of the agenda is about, beside what the base class knows.
_SUBMIT = 1
_TO_INVOKER = 2
_TO_SCHEDULER = 3
_TICK_INVOKER = 5
_TICK_SCHEDULER = 6
_RESERVE = 7
_LEASE_END = 9
_REPORT = 10


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
