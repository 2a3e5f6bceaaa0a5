"""The world of ``simulation`` around the baseline that pushes, of ``sharding`` and its neighbours.

Every controller has a balancer and its own view of the invokers' health; activations travel through
a topic per invoker.  Assumed besides what ``simulation`` assumes: a topic gives each message once,
as its offset is committed first; acknowledgements never fail, and take ``link_us``; a result and
the completion of its run are one message; test activations of a living invoker succeed at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import limits
from .effects import Reject
from .events import Activation, Event, QueueSpec, RunEnded, TimeReached
from .sharding import Balancer, PushedAction
from .sharding_feed import Feed
from .sharding_pool import Processed, Push, PushPool, PushPoolConfig
from .sharding_supervision import InvocationResult, Supervision
from .simulation import Cluster, Flight, Host
from .simulation_config import SimulationConfig
from .simulation_engine import SimulatedEngine

_NEVER = limits.TIME_MAX_US
_TO_HOST = 100
_TO_CONTROLLER = 101
_TICK_HOST = 102
_PING = 103
_BACK = 104
_PING_INTERVAL_US = 1_000_000


class PushCluster(Cluster):
    """A cluster whose controllers push.

    Of its configuration ``schedulers``, ``rule``, ``coordination_us``, the cap and the durations of
    the pools that pull are nobody's here.
    """

    def __init__(self, config: SimulationConfig, actions: Sequence[QueueSpec], seed: int) -> None:
        super().__init__(config, actions, seed)
        concurrencies = [spec.concurrency for spec in self.actions]
        self._concurrency_max = max(concurrencies, default=1)
        self._pushed = [
            PushedAction(
                spec.namespace,
                f"{spec.namespace}/{spec.action}",
                str(spec.revision),
                spec.memory_mb,
                spec.concurrency,
                spec.timeout_us,
            )
            for spec in self.actions
        ]
        self._feeds: list[Feed] = []
        # Of what has not been acknowledged.
        self._controller_of: dict[str, int] = {}
        # By invoker: what came last through its topic.
        self._last: list[Flight | None] = [None] * config.invokers
        self._seen = [0] * config.controllers
        self._balancers = [Balancer() for _ in range(config.controllers)]
        self._supervisions = [Supervision() for _ in range(config.controllers)]
        for balancer in self._balancers:
            balancer.shards.update_cluster(config.controllers)
        for index in range(config.invokers):
            self._feeds.append(self._new_feed())
            self.hosts.append(self._begin(index, 0))
        self._ping(0)

    def dispatch(self, kind: int, target: object, what: object, now_us: int) -> None:
        """Do what is due."""
        if kind == _TO_HOST:
            self._reached(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _TO_CONTROLLER:
            self._acknowledged(target, what, now_us)  # type: ignore[arg-type]
        elif kind == _TICK_HOST:
            self._tick_host(target, now_us)  # type: ignore[arg-type]
        elif kind == _PING:
            self._ping(now_us)
        elif kind == _BACK:
            host: Host = target  # type: ignore[assignment]
            self._feeds[host.index] = self._new_feed()
            self.hosts[host.index] = self._begin(host.index, now_us)
        else:
            super().dispatch(kind, target, what, now_us)

    def check(self) -> None:
        """Assert what holds of all balancers and pools.  Cost: O(everything)."""
        for balancer in self._balancers:
            balancer.check()
        for host in self.hosts:
            if host.alive:
                host.pool.check()

    def submit(self, flight: Flight, activation_id: str, now_us: int) -> None:
        """Let the controller assign an activation, and send it to its invoker."""
        flight.activation = Activation(activation_id, b"", flight.arrived_us)
        balancer = self._balancers[flight.controller]
        action = self._pushed[flight.action]
        index = balancer.publish(activation_id, action, now_us, self.chance.draw())
        if index is None:
            self.finish(activation_id, 2, now_us)
            return
        self._controller_of[activation_id] = flight.controller
        host = self.hosts[index]
        self.send(host.link, host, _TO_HOST, host, flight, now_us)

    def _acknowledged(
        self, controller: int, ack: tuple[str, int, InvocationResult], now_us: int
    ) -> None:
        activation_id, index, result = ack
        self._balancers[controller].complete(activation_id)
        self._supervisions[controller].completed(index, result, now_us)
        self._update(controller)

    def _update(self, controller: int) -> None:
        """Tell a balancer of the invokers' health when it has changed."""
        supervision = self._supervisions[controller]
        if supervision.changes != self._seen[controller]:
            self._seen[controller] = supervision.changes
            self._balancers[controller].shards.update_invokers(supervision.invokers)

    def _ping(self, now_us: int) -> None:
        """Let every second pass for the controllers: pings, silence, what is given up."""
        for controller, supervision in enumerate(self._supervisions):
            for host in self.hosts:
                if host.alive and supervision.pinged(host.index, self.config.invoker_mb, now_us):
                    self._test(supervision, host.index, now_us)
            for index in supervision.time_reached(now_us):
                if self.hosts[index].alive:
                    self._test(supervision, index, now_us)
            for activation_id, index in self._balancers[controller].give_up(now_us):
                self._controller_of.pop(activation_id, None)
                self.finish(activation_id, 3, now_us)
                supervision.completed(index, InvocationResult.TIMEOUT, now_us)
            self._update(controller)
        self._put(now_us + _PING_INTERVAL_US, _PING, None, None)

    def _test(self, supervision: Supervision, index: int, now_us: int) -> None:
        while supervision.completed(index, InvocationResult.SUCCESS, now_us):
            pass  # a success in bad health asks for another test

    # --- invokers --------------------------------------------------------------------------------

    def _new_feed(self) -> Feed:
        return Feed(self.config.invoker_mb, self._concurrency_max)

    def new_host(self, index: int, now_us: int) -> Host:
        """Return an invoker without containers."""
        config = self.config
        pool = PushPool(
            PushPoolConfig(
                f"i{index}",
                config.invoker_mb,
                config.push_keep_alive_us,
                config.push_pause_grace_us,
                config.prewarm,
            )
        )
        host = Host(index, f"i{index}", pool, SimulatedEngine(config.engine, self.chance))
        self._arm(host, now_us)
        return host

    def lost(self, host: Host, now_us: int) -> None:
        """Let it come back; what it had is missed when completions stay away."""
        self._put(now_us + self.config.faults.lease_us, _BACK, host, None)

    def _reached(self, host: Host, flight: Flight, now_us: int) -> None:
        assert flight.activation is not None
        if not host.alive or self._last[host.index] is flight:
            return
        self._last[host.index] = flight
        push = Push(self.actions[flight.action], flight.activation)
        for each in self._feeds[host.index].offer(push):
            self.at_host(host, each, now_us)

    def at_host(self, host: Host, event: Event, now_us: int) -> None:
        """Tell a pool something, and do what it asks for."""
        if not host.alive:
            return
        self.note(host, event, now_us)
        todo = [event]
        while todo:
            for effect in host.pool.step(todo.pop(), now_us):
                if isinstance(effect, Processed):
                    todo += self._feeds[host.index].processed()
                elif isinstance(effect, Reject):
                    activation_id = effect.activation.activation_id
                    self._acknowledge(host, activation_id, now_us)
                    self.finish(activation_id, 2, now_us + 2 * self.config.link_us)
                else:
                    self.node_effect(host, effect, now_us)
        self._arm(host, now_us)

    def note(self, host: Host, event: Event, now_us: int) -> None:
        """Account for what happened, and acknowledge what ended."""
        if isinstance(event, RunEnded):
            self._acknowledge(host, event.activation_id, now_us)
        super().note(host, event, now_us)

    def _acknowledge(self, host: Host, activation_id: str, now_us: int) -> None:
        """Let the controller hear that an activation has left its invoker; once."""
        controller = self._controller_of.pop(activation_id, -1)
        if controller >= 0:
            ack = (activation_id, host.index, InvocationResult.SUCCESS)
            at_us = now_us + self.config.link_us
            self._put_soon(at_us, _TO_CONTROLLER, controller, ack)

    def _arm(self, host: Host, now_us: int) -> None:
        due_us = host.pool.next_deadline_us()
        if due_us is not None and due_us < host.armed_us:
            host.armed_us = due_us
            self._put(max(due_us, now_us), _TICK_HOST, host, None)

    def _tick_host(self, host: Host, now_us: int) -> None:
        if host.armed_us <= now_us:
            host.armed_us = _NEVER
            self.at_host(host, TimeReached(), now_us)
