"""One scheduler and the pools of its invokers, joined by a wire, in a world without chance.

The fixture of scenarios and of the proof of both cores together.  Everything happens at a time
of the world's own clock and in the same order each time.  The wire keeps the order of each
direction between two nodes, as real links do; it delays, repeats and loses what it is told to.
Sandboxes take the time and have the faults that they are given.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.prewarm import Prewarm
from acs_core.scheduler import Scheduler, SchedulerConfig

NEVER_US = 2**62


@dataclass
class Times:
    """How long things take in the world, in microseconds."""

    creation_us: int = 300_000
    init_us: int = 10_000
    run_us: int = 20_000
    remove_us: int = 50_000
    pause_us: int = 10_000
    resume_us: int = 15_000
    reserve_us: int = 0
    latency_us: int = 0


class Engine:
    """What one invoker's engine does: ``fault`` is "", "down", "no image" or "no pause".

    ``up`` are the containers whose sandbox is up, ``prewarmed`` the sandboxes of nobody yet.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.up: set[str] = set()
        self.prewarmed: set[str] = set()
        self.asleep: set[str] = set()
        self.runs: dict[str, set[str]] = {}


class SchedulerPair:
    """A ``Scheduler``, a ``ContainerPool`` per invoker, and the world around them.

    Args:
      invokers: Memory in MB by invoker.
      keep_alive_us, pause_grace_us, prewarm, prewarm_check_us: Of the pools.
      delay: Returns how long a message is under way; None: ``times.latency_us``.
      copies: Returns how often a message arrives, one copy right after the other; None: once.
    ``trace`` has a line for everything that a core asked for and for each result.  ``check`` runs
    after each step.  ``watch`` is called with every event of the scheduler, its time and its
    effects.
    """

    def __init__(
        self,
        invokers: Mapping[str, int],
        *,
        config: SchedulerConfig | None = None,
        keep_alive_us: int = 10_000_000,
        pause_grace_us: int = 0,
        prewarm: tuple[Prewarm, ...] = (),
        prewarm_check_us: int = 600_000_000,
        times: Times | None = None,
        delay: Callable[[object], int] | None = None,
        copies: Callable[[object], int] | None = None,
    ) -> None:
        self.now_us = 0
        self.config = config or SchedulerConfig(name="c")
        self.scheduler = Scheduler(self.config)
        self.pools: dict[str, ContainerPool] = {}
        self.engines: dict[str, Engine] = {}
        self.times = times or Times()
        self.delay = delay or (lambda message: self.times.latency_us)
        self.copies = copies or (lambda message: 1)
        self.trace: list[str] = []
        self.watch: Callable[[ev.Event, int, list[object]], None] | None = None
        # What became of each activation: its rejection, and its result.  Both, only if unknown.
        self.accepted: set[str] = set()
        self.rejected: dict[str, fx.Cause] = {}
        self.results: dict[str, ev.Outcome] = {}
        self.starts: dict[str, int] = {}
        self.run_us: dict[str, int] = {}
        self.outcomes: dict[str, ev.Outcome] = {}
        self.denial = ""
        self.caps: dict[str, int] = {}
        self._memory_mb = dict(invokers)
        self._granted: dict[str, tuple[str, str, int]] = {}
        self._epochs = 0
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._link_us: dict[tuple[str, str], int] = {}
        self._cut: set[str] = set()
        # What was sent to or from an invoker up to here was lost when it was cut off.
        self._lost_until: dict[str, int] = {}
        self._specs: dict[str, ev.QueueSpec] = {}
        self._forwarded: list[ev.Activation] = []
        for name in invokers:
            self.pools[name] = ContainerPool(
                PoolConfig(
                    name,
                    invokers[name],
                    keep_alive_us,
                    pause_grace_us,
                    prewarm,
                    prewarm_check_us,
                )
            )
            self.engines[name] = Engine()
            self._report(name)

    # --- what tests tell the world -----------------------------------------------------------

    def open(self, spec: ev.QueueSpec, history_us: int = 0) -> None:
        """Open the queue under a new epoch; what was forwarded from it arrives again."""
        self._epochs += 1
        self._specs[spec.queue] = spec
        self.tell(ev.QueueOpened(spec, self._epochs, history_us))
        again, self._forwarded = self._forwarded, []
        for activation in again:
            if activation.queue == spec.queue:
                self.tell(ev.Arrived(spec.queue, activation))
            else:
                self._forwarded.append(activation)

    def arrive(self, queue: str, *names: str, deadline_us: int = 0) -> None:
        """Let activations arrive now."""
        for name in names:
            self.accepted.add(name)
            self.tell(ev.Arrived(queue, ev.Activation(name, b"", self.now_us, deadline_us)))

    def tell(self, event: ev.Event) -> None:
        """Let the scheduler have the event now, and do what it asks for."""
        effects = self.scheduler.step(event, self.now_us)
        self.scheduler.check()
        if self.watch is not None:
            self.watch(event, self.now_us, effects)
        for effect in effects:
            self._note("scheduler", effect)
            self._perform(effect)

    def tell_pool(self, invoker: str, event: ev.Event) -> None:
        """Let the pool have the event now, and do what it asks for."""
        pool = self.pools[invoker]
        effects = pool.step(event, self.now_us)
        pool.check()
        for effect in effects:
            self._note(invoker, effect)
            if isinstance(effect, ev.Event):
                self._send(invoker, "scheduler", effect)
            else:
                self._carry_out(invoker, effect)

    def cap(self, namespace: str, containers_max: int) -> None:
        """Change the cap of a namespace, for the scheduler and for the coordination."""
        self.caps[namespace] = containers_max
        self.tell(ev.LimitsChanged(namespace, containers_max))

    def cut_off(self, invoker: str) -> None:
        """Lose all that is under way to and from the invoker; its lease expires now."""
        self._cut.add(invoker)
        self._lost_until[invoker] = self._serial
        self._granted = {c: g for c, g in self._granted.items() if g[1] != invoker}
        self.tell(ev.InvokerGone(invoker))

    def join(self, invoker: str) -> None:
        """Let a cut-off invoker come back with what it still holds."""
        if invoker in self._cut:
            self._cut.remove(invoker)
            self._report(invoker)

    def break_sandbox(self, invoker: str, container: str) -> None:
        """Let a sandbox die; the node answers for what ran in it."""
        engine = self.engines[invoker]
        if container not in engine.up:
            return
        for activation_id in sorted(engine.runs[container]):
            self._end(invoker, container, activation_id, ev.Outcome.DEVELOPER_ERROR)
        self.tell_pool(invoker, ev.SandboxBroke(container, "it exited"))

    def advance(self, us: int) -> None:
        """Let time pass; everything that is due happens, in its order."""
        end_us = self.now_us + us
        while self._next_us() <= end_us:
            self._turn()
        self.now_us = end_us

    def run_until_quiet(self, limit_us: int) -> None:
        """Let time pass until nothing is due any more; fail when that takes longer."""
        end_us = self.now_us + limit_us
        while self._next_us() < NEVER_US:
            assert self._next_us() <= end_us, f"not quiet after {limit_us} us"
            self._turn()

    def containers_of(self, invoker: str) -> list[str]:
        """Return the containers whose sandbox is up, by name."""
        return sorted(self.engines[invoker].up)

    def held(self) -> list[str]:
        """Return the containers that hold a place with the coordination."""
        return sorted(self._granted)

    # --- time --------------------------------------------------------------------------------

    def at(self, delay_us: int, what: Callable[[], None]) -> None:
        """Do something later."""
        self._serial += 1
        heapq.heappush(self._agenda, (self.now_us + delay_us, self._serial, what))

    def _next_us(self) -> int:
        due_us = self._agenda[0][0] if self._agenda else NEVER_US
        deadlines = [pool.next_deadline_us() for pool in self.pools.values()]
        for wanted_us in (self.scheduler.next_deadline_us(), *deadlines):
            if wanted_us is not None:
                due_us = min(due_us, max(wanted_us, self.now_us))
        return due_us

    def _turn(self) -> None:
        """Do the one thing that is due next; what is on the agenda goes before timers."""
        due_us = self.now_us = max(self.now_us, self._next_us())
        if self._agenda and self._agenda[0][0] <= due_us:
            heapq.heappop(self._agenda)[2]()
            return
        wanted_us = self.scheduler.next_deadline_us()
        if wanted_us is not None and wanted_us <= due_us:
            self.tell(ev.TimeReached())
            return
        for name, pool in self.pools.items():
            wanted_us = pool.next_deadline_us()
            if wanted_us is not None and wanted_us <= due_us:
                self.tell_pool(name, ev.TimeReached())
                return

    # --- the wire ----------------------------------------------------------------------------

    def _send(self, source: str, target: str, message: ev.Event) -> None:
        invoker = source if target == "scheduler" else target
        if invoker in self._cut:
            return
        link = (source, target)
        due_us = max(self.now_us + self.delay(message), self._link_us.get(link, 0))
        self._link_us[link] = due_us
        for _ in range(self.copies(message)):  # one right after the other
            receive = partial(self._receive, invoker, target, message, self._serial + 1)
            self.at(due_us - self.now_us, receive)

    def _receive(self, invoker: str, target: str, message: ev.Event, serial: int) -> None:
        if invoker in self._cut or serial <= self._lost_until.get(invoker, 0):
            return
        if target != "scheduler":
            self.tell_pool(target, message)
            return
        if isinstance(message, (ev.ContainerGone, ev.CreationFailed)):
            self._granted.pop(message.container, None)
        self.tell(message)

    # --- what the scheduler asks for ---------------------------------------------------------

    def _perform(self, effect: object) -> None:
        if isinstance(effect, fx.Adopt):
            for invoker in self.pools if effect.invoker == "" else [effect.invoker]:
                self._send("scheduler", invoker, effect)
        elif isinstance(effect, (fx.Create, fx.Deliver, fx.Resume, fx.Release)):
            self._send("scheduler", effect.invoker, effect)
        elif isinstance(effect, fx.Reserve):
            reserve = effect
            self.at(self.times.reserve_us, lambda: self._reserve(reserve))
        elif isinstance(effect, fx.Unreserve):
            for container in effect.containers:
                self._granted.pop(container, None)
        elif isinstance(effect, fx.Reject):
            name = effect.activation.activation_id
            # What is unknown may be found again on an invoker that comes back, and lost again.
            unknown = self.rejected.get(name) == fx.Cause.UNKNOWN == effect.cause
            assert name not in self.rejected or unknown, f"{name} ended twice"
            assert effect.cause == fx.Cause.UNKNOWN or name not in self.starts
            self.rejected[name] = fx.Cause(effect.cause)
        elif isinstance(effect, fx.Forward):
            self._forwarded.extend(effect.activations)

    def _reserve(self, effect: fx.Reserve) -> None:
        """Grant what the caps and the invokers' memory allow, in one transaction."""
        granted = []
        held = sum([owner == effect.namespace for owner, _, _ in self._granted.values()])
        cap = self.caps.get(effect.namespace, self.config.namespace_containers_max)
        for place in [] if self.denial else effect.places:
            used_mb = sum([mb for _, at, mb in self._granted.values() if at == place.invoker])
            free_mb = self._memory_mb[place.invoker] - used_mb
            if held < cap and free_mb >= effect.memory_mb and place.invoker not in self._cut:
                held += 1
                granted.append(place.container)
                self._granted[place.container] = (
                    effect.namespace,
                    place.invoker,
                    effect.memory_mb,
                )
        if granted:
            self.tell(ev.Reserved(effect.queue, effect.serial, tuple(granted)))
        else:
            self.tell(ev.Denied(effect.queue, effect.serial, self.denial or "no room"))

    def _report(self, invoker: str) -> None:
        self.tell(
            ev.InvokerReported(
                invoker, self._memory_mb[invoker], creation_us=self.times.creation_us
            )
        )

    # --- what a pool asks for ----------------------------------------------------------------

    def _carry_out(self, invoker: str, effect: object) -> None:
        times, engine = self.times, self.engines[invoker]
        if isinstance(effect, fx.StartSandbox):
            container = effect.container
            self.at(times.creation_us, lambda: self._started(invoker, container))
        elif isinstance(effect, fx.PrewarmSandbox):
            sandbox = effect.container
            self.at(times.creation_us, lambda: self._started(invoker, sandbox, prewarmed=True))
        elif isinstance(effect, fx.AssignSandbox):
            engine.prewarmed.remove(effect.sandbox)
            engine.up.add(effect.container)
            engine.runs[effect.container] = engine.runs.pop(effect.sandbox)
            self.tell_pool(invoker, ev.SandboxReady(effect.container))
        elif isinstance(effect, fx.PauseSandbox):
            assert not engine.runs[effect.container], "paused while something ran"
            container = effect.container
            self.at(times.pause_us, lambda: self._slept(invoker, container, asleep=True))
        elif isinstance(effect, fx.ResumeSandbox):
            container = effect.container
            self.at(times.resume_us, lambda: self._slept(invoker, container, asleep=False))
        elif isinstance(effect, fx.Initialise):
            container, name = effect.container, effect.activation.activation_id
            self._start(name)
            engine.runs[container].add(name)
            self.at(times.init_us, lambda: self._initialised(invoker, container, name))
        elif isinstance(effect, fx.Run):
            container, name = effect.container, effect.activation.activation_id
            assert container not in engine.asleep, "run while it was paused"
            if name not in engine.runs[container]:
                self._start(name)
                engine.runs[container].add(name)
            run_us = self.run_us.get(name, times.run_us)
            outcome = self.outcomes.get(name, ev.Outcome.SUCCESS)
            self.at(run_us, lambda: self._end(invoker, container, name, outcome, run_us))
        elif isinstance(effect, fx.Abort):
            outcome = ev.Outcome.DEVELOPER_ERROR
            self._end(invoker, effect.container, effect.activation_id, outcome, effect.timeout_us)
        elif isinstance(effect, fx.Remove):
            container = effect.container
            self.at(times.remove_us, lambda: self._removed(invoker, container))

    def _start(self, name: str) -> None:
        assert name not in self.starts, f"{name} started twice"
        assert self.rejected.get(name, fx.Cause.UNKNOWN) is fx.Cause.UNKNOWN
        self.starts[name] = self.now_us

    def _started(self, invoker: str, container: str, *, prewarmed: bool = False) -> None:
        engine = self.engines[invoker]
        if engine.fault == "down":
            failure, cause = ev.FailureClass.RECOVERABLE, "the engine does not answer"
        elif engine.fault == "no image":
            failure, cause = ev.FailureClass.FINAL, "the image is missing"
        else:
            (engine.prewarmed if prewarmed else engine.up).add(container)
            engine.runs[container] = set()
            self.tell_pool(invoker, ev.SandboxReady(container))
            return
        self.tell_pool(invoker, ev.SandboxFailed(container, failure, cause))

    def _slept(self, invoker: str, container: str, *, asleep: bool) -> None:
        engine = self.engines[invoker]
        if container not in engine.up:
            return
        if engine.fault == "no pause":
            self.tell_pool(invoker, ev.SandboxBroke(container, "the engine does not answer"))
        elif asleep:
            engine.asleep.add(container)
            self.tell_pool(invoker, ev.SandboxPaused(container))
        else:
            engine.asleep.discard(container)
            self.tell_pool(invoker, ev.SandboxResumed(container))

    def _initialised(self, invoker: str, container: str, name: str) -> None:
        if name in self.engines[invoker].runs.get(container, ()):
            self.tell_pool(invoker, ev.Initialised(container, self.times.init_us))

    def _end(
        self, invoker: str, container: str, name: str, outcome: ev.Outcome, run_us: int = 0
    ) -> None:
        """Hand on the result of a run, once, then let the pool know."""
        runs = self.engines[invoker].runs.get(container, set())
        if name not in runs:
            return
        runs.remove(name)
        assert name not in self.results, f"{name} has two results"
        self.results[name] = outcome
        self._note("result", f"{name} {outcome.name}")
        self.tell_pool(invoker, ev.RunEnded(container, name, run_us, outcome))

    def _removed(self, invoker: str, container: str) -> None:
        engine = self.engines[invoker]
        engine.up.discard(container)
        engine.prewarmed.discard(container)
        engine.asleep.discard(container)
        assert not engine.runs.pop(container, set()), "removed while something ran"
        self.tell_pool(invoker, ev.SandboxRemoved(container))

    def _note(self, who: str, what: object) -> None:
        text = what if isinstance(what, str) else describe(what)
        self.trace.append(f"{self.now_us / 1000:.1f} {who}: {text}")


class Desk:
    """A scheduler with one queue, n/a, or more; ``do`` returns what it asks for, in words."""

    def __init__(self, **config: Any) -> None:
        self.scheduler = Scheduler(SchedulerConfig(name="c", **config))
        self.now_us = 0

    def do(self, *events: ev.Event) -> list[str]:
        words = []
        for event in events:
            words += [describe(effect) for effect in self.scheduler.step(event, self.now_us)]
            self.scheduler.check()
        return words

    def open(self, queue: str = "n/a", run_us: int = 0, **spec: Any) -> list[str]:
        return self.do(ev.QueueOpened(ev.QueueSpec(queue, "n", queue[2:], 0, **spec), 1, run_us))

    def arrive(self, *names: str, queue: str = "n/a") -> list[str]:
        work = [ev.Activation(name, b"", self.now_us) for name in names]
        return self.do(*[ev.Arrived(queue, activation) for activation in work])

    def pull(
        self, container: str, free: int = 1, *, ended: str = "", started: str = ""
    ) -> list[str]:
        done = (ev.Completion(ended, 0, 1_000, 0),) if ended else ()
        return self.do(ev.Pulled(container, 1, free, (started,) if started else (), done))

    def wait(self, us: int) -> list[str]:
        """Let time pass and every deadline in it be met."""
        end_us = self.now_us + us
        words = []
        due_us = self.scheduler.next_deadline_us()
        while due_us is not None and due_us <= end_us:
            self.now_us = max(self.now_us, due_us)
            words += self.do(ev.TimeReached())
            due_us = self.scheduler.next_deadline_us()
        self.now_us = end_us
        return words


def describe(effect: object) -> str:
    """Return an effect in one line."""
    return _WORDS[type(effect)](effect)


def _pulled(e: ev.Pulled) -> str:
    ended = [f"{c.activation_id} {ev.Outcome(c.outcome).name}" for c in e.completions]
    return (
        f"pull {e.container} epoch {e.epoch} free {e.free_slots}"
        + _list(" started", e.started)
        + _list(" ended", ended)
    )


def _list(word: str, items: Iterable[str]) -> str:
    text = ", ".join(items)
    return f"{word} {text}" if text else ""


def _held(e: ev.Adopted) -> str:
    held = [
        f"{h.container}{' (kept)' * h.keep}{'' if h.serving else ' (starting)'}"
        + _list(" with", h.activation_ids)
        for h in e.held
    ]
    return f"adopted {e.queue} epoch {e.epoch}{_list(' holds', held)}"


_WORDS: dict[type, Callable[..., str]] = {
    fx.Adopt: lambda e: f"adopt {e.queue} epoch {e.epoch}" + f" by {e.invoker}" * bool(e.invoker),
    fx.Reserve: lambda e: (
        f"reserve for {e.queue}" + _list("", [f"{p.container}@{p.invoker}" for p in e.places])
    ),
    fx.Unreserve: lambda e: f"unreserve{_list('', e.containers)}",
    fx.Create: lambda e: (
        f"create {e.container}@{e.invoker} for {e.spec.queue}" + ", to be kept" * e.keep
    ),
    fx.Deliver: lambda e: f"deliver {e.activation.activation_id} to {e.container}",
    fx.Resume: lambda e: f"wake {e.container}",
    fx.Release: lambda e: f"release {e.container}: {e.why}",
    fx.Reject: lambda e: (
        f"reject {e.activation.activation_id} {fx.Cause(e.cause).name}: {e.reason}"
        + (f" (retry after {e.retry_after_us / 1000:g} ms)" if e.retry_after_us else "")
    ),
    fx.Forward: lambda e: (
        f"forward to {e.to}" + _list(":", [a.activation_id for a in e.activations])
    ),
    fx.CloseQueue: lambda e: f"close {e.queue} epoch {e.epoch}",
    fx.Throttle: lambda e: f"throttle {e.queue} {'on' if e.on else 'off'}: {e.reason}",
    fx.Decided: lambda e: f"decide {e.queue} {e.decision.verdict.name} {e.decision.count}",
    fx.Differed: lambda e: f"shadow {e.queue} {e.decision.verdict.name} {e.decision.count}",
    fx.StartSandbox: lambda e: f"start {e.container}",
    fx.Initialise: lambda e: f"init {e.container} for {e.activation.activation_id}",
    fx.Run: lambda e: f"run {e.activation.activation_id} in {e.container}",
    fx.Abort: lambda e: (
        f"abort {e.activation_id} "
        + ("for the drain" if e.drained else f"after {e.timeout_us / 1000:g} ms")
    ),
    fx.PrewarmSandbox: lambda e: f"prewarm {e.container} {e.kind} {e.memory_mb}",
    fx.AssignSandbox: lambda e: f"assign {e.sandbox} to {e.container}",
    fx.PauseSandbox: lambda e: f"pause {e.container}",
    fx.ResumeSandbox: lambda e: f"resume {e.container}",
    fx.Remove: lambda e: f"remove {e.container}: {e.cause}",
    ev.Adopted: _held,
    ev.ContainerServing: lambda e: f"serving {e.container}",
    ev.ContainerPaused: lambda e: f"paused {e.container}",
    ev.ContainerLeaving: lambda e: f"leaving {e.container}: {e.cause}",
    ev.ContainerGone: lambda e: f"gone {e.container}: {e.cause}",
    ev.CreationFailed: lambda e: (
        f"failed {e.container} {ev.FailureClass(e.failure).name}: {e.cause}"
    ),
    ev.Pulled: _pulled,
    ev.Returned: lambda e: f"return from {e.container}{_list('', e.activation_ids)}",
}
