"""Who holds what: the queues, containers, namespaces and invokers of one scheduler.

Book-keeping alone: entries, and the moves of a container between being reserved, in progress,
serving and gone, applied in every place that counts it.  When they happen is ``scheduler``'s
business.  Counts are lengths of what exists; the few numbers kept for speed are compared in
``check``.
"""

from __future__ import annotations

from . import limits
from .action_queue import ActionQueue
from .effects import Cause, Place
from .events import Activation, InvokerReported, QueueSpec
from .forecast import Forecast
from .load import QueueLoad
from .nesting import Calls
from .placement import InvokerView, ready_us
from .queue_states import QueueLife
from .shadow import ShadowTally
from .snapshot import Decision


class NamespaceEntry:
    """A namespace's cap and every container that counts against it, reserved ones included.

    ``reserve`` is how many places of the cap calls have for themselves (``nesting``).
    """

    def __init__(self, containers_max: int, reserve: int) -> None:
        self.containers_max = containers_max
        self.reserve = reserve
        self.in_progress: dict[str, ContainerEntry] = {}
        self.serving: dict[str, ContainerEntry] = {}
        self.queues = 0
        self.reserving = 0
        self.weight = 1.0
        # How many of them, reserved ones included, have each level above 0.
        self.levels: dict[int, int] = {}

    def held(self) -> int:
        """Return how many containers count against the cap."""
        return len(self.serving) + len(self.in_progress) + self.reserving

    def spare(self) -> int:
        """Return how many places are for calls: the reserve, less where the cap is small."""
        return max(0, min(self.reserve, self.containers_max - 1))

    def room(self, depth: int = 0) -> int:
        """Return how many containers more may be had for work of this depth.

        Below 0 when the cap was lowered.  Cost: O(reserve x levels).
        """
        spare = self.spare()
        shared = self.containers_max - spare
        held = self.held()
        room = self.containers_max - held
        for level in range(min(depth, spare), spare):
            above = sum([n for other, n in self.levels.items() if other > level])
            room = min(room, shared + level - (held - above))
        return room

    def level_for(self, depth: int) -> int:
        """Return the lowest level that a container for work of this depth may have; -1: none."""
        for level in range(min(depth, self.spare()) + 1):
            if self.room(level) > 0:
                return level
        return -1

    def count_level(self, level: int, count: int) -> None:
        """Count so many containers more, or fewer, of this level."""
        if level > 0:
            left = self.levels.pop(level, 0) + count
            if left:
                self.levels[level] = left


class QueueEntry:
    """One queue with all that belongs to it."""

    def __init__(
        self,
        spec: QueueSpec,
        epoch: int,
        capacity: int,
        namespace: NamespaceEntry,
        load: QueueLoad,
        now_us: int,
        calls: Calls | None = None,
        wait_max_us: int = limits.WAIT_MAX_US,
    ) -> None:
        self.spec = spec
        # The action's own bound, or the one that all have.
        self.wait_max_us = wait_max_us if spec.wait_max_us is None else spec.wait_max_us
        self.epoch = epoch
        self.namespace = namespace
        self.load = load
        self.life = QueueLife()
        self.line = ActionQueue(capacity, calls)
        self.in_progress: dict[str, ContainerEntry] = {}
        self.serving: dict[str, ContainerEntry] = {}
        self.leaving: dict[str, ContainerEntry] = {}
        # Containers that sleep, those that are being woken included; the last one fell asleep last.
        self.paused: dict[str, ContainerEntry] = {}
        # Containers with free slots, the one that pulled last on top: few stay hot.
        self.open: list[ContainerEntry] = []
        # Those that serve only calls are not among them but here.
        self.open_to_calls: list[ContainerEntry] = []
        # Activations delivered and not ended, the oldest delivery first.
        self.delivered: dict[str, Activation] = {}
        # Invokers that have not told yet what they hold of this queue, without those that joined
        # after it had opened: nothing waits for these.
        self.adopting: dict[str, bool] = {}
        self.reserving: tuple[Place, ...] = ()
        self.reserving_level = 0
        # Which of the scheduler's reservations that is, or the last one was.
        self.reserving_serial = -1
        self.asked_us = 0
        self.decided_us = -1
        self.decision: Decision | None = None
        self.forecast: Forecast | None = None
        self.shadow: ShadowTally | None = None
        self.initialized = False
        # Failed creations in a row, when to try again, and what went wrong.
        self.failures = 0
        self.retry_us = 0
        self.final = False
        self.hopeless = Cause.CREATION_FAILED  # of refusals while ``final``
        self.cause = ""
        self.quiet_since_us = now_us
        # It waits for a look that an event's own step could not take.
        self.soon = False
        # Containers of the floor, in progress or serving, and when it is seen to next at the
        # earliest.
        self.kept: dict[str, ContainerEntry] = {}
        self.floor_us = 0

    def floor_lacks(self) -> int:
        """Return how many containers its floor lacks; below 0: so many too many are kept."""
        return self.spec.containers_min - len(self.kept)


class ContainerEntry:
    """A container as a scheduler knows it; ``free`` slots were offered and not used.

    It serves activations whose depth is ``level`` or more.
    """

    def __init__(self, container: str, invoker: str, queue: QueueEntry, keep: bool = False) -> None:
        self.container = container
        self.invoker = invoker
        self.queue = queue
        self.free = 0
        self.stacked = False
        # It is paused, and was asked to wake.
        self.resuming = False
        self.outstanding: dict[str, Activation] = {}
        self.idle_since_us = 0
        # -1 while in progress.
        self.serving_since_us = -1
        self.leaving = False
        self.level = 0
        # It belongs to the queue's floor.
        self.keep = keep
        # When it began to count, as one in progress.
        self.entered_us = 0


class InvokerEntry:
    """An invoker's last report, the containers there, and what they and reservations hold."""

    def __init__(self, report: InvokerReported) -> None:
        self.report = report
        self.containers: dict[str, ContainerEntry] = {}
        self.used_mb = 0
        self.creations = 0
        # Queues of which it has not told yet what it holds: nothing of theirs is placed there.
        self.unheard: dict[str, QueueEntry] = {}
        # Those of them that were open when it joined, and of which it was not asked yet.
        self.unasked: dict[str, QueueEntry] = {}


class Ledger:
    """All entries of one scheduler.

    Invariants: B1 (docs/invariants.md).
    """

    def __init__(self) -> None:
        self.queues: dict[str, QueueEntry] = {}
        self.containers: dict[str, ContainerEntry] = {}
        self.namespaces: dict[str, NamespaceEntry] = {}
        self.invokers: dict[str, InvokerEntry] = {}
        # The queues that wait for an answer of the coordination.
        self.reserving: dict[str, QueueEntry] = {}

    # --- a container's way --------------------------------------------------------------------

    def reserve(
        self,
        queue: QueueEntry,
        serial: int,
        places: tuple[Place, ...],
        level: int,
        now_us: int,
    ) -> None:
        """Count places as reserved for the queue until the coordination has answered."""
        assert not queue.reserving
        self.reserving[queue.spec.queue] = queue
        queue.reserving = places
        queue.reserving_serial = serial
        queue.asked_us = now_us
        queue.reserving_level = level
        queue.namespace.reserving += len(places)
        queue.namespace.count_level(level, len(places))
        for spot in places:
            self.invokers[spot.invoker].used_mb += queue.spec.memory_mb

    def end_reservation(self, queue: QueueEntry) -> None:
        """Count the queue's reserved places no longer; what was granted is entered anew."""
        del self.reserving[queue.spec.queue]
        for spot in queue.reserving:
            invoker = self.invokers.get(spot.invoker)
            if invoker is not None:
                invoker.used_mb -= queue.spec.memory_mb
        queue.namespace.reserving -= len(queue.reserving)
        queue.namespace.count_level(queue.reserving_level, -len(queue.reserving))
        queue.reserving = ()
        queue.reserving_level = 0

    def enter(self, container: ContainerEntry, now_us: int) -> None:
        """Count a container as in progress; its invoker is a known one."""
        name = container.container
        self.containers[name] = container
        container.entered_us = now_us
        container.queue.in_progress[name] = container
        if container.keep:
            container.queue.kept[name] = container
        container.queue.namespace.in_progress[name] = container
        container.queue.namespace.count_level(container.level, 1)
        invoker = self.invokers[container.invoker]
        invoker.containers[name] = container
        invoker.used_mb += container.queue.spec.memory_mb
        invoker.creations += 1

    def serve(self, container: ContainerEntry, now_us: int) -> None:
        """Count a container that was in progress as serving."""
        name = container.container
        queue = container.queue
        del queue.in_progress[name]
        del queue.namespace.in_progress[name]
        queue.serving[name] = container
        queue.namespace.serving[name] = container
        container.idle_since_us = now_us
        container.serving_since_us = now_us
        self.invokers[container.invoker].creations -= 1

    def leave(self, container: ContainerEntry) -> None:
        """Count a serving container as leaving: it takes no more work."""
        container.free = 0
        container.leaving = True
        container.queue.leaving[container.container] = container
        container.queue.paused.pop(container.container, None)
        container.queue.kept.pop(container.container, None)

    def forget(self, container: ContainerEntry) -> None:
        """Count a container no longer."""
        name = container.container
        queue = container.queue
        del self.containers[name]
        creating = queue.in_progress.pop(name, None) is not None
        queue.serving.pop(name, None)
        queue.leaving.pop(name, None)
        queue.paused.pop(name, None)
        queue.kept.pop(name, None)
        queue.namespace.in_progress.pop(name, None)
        queue.namespace.serving.pop(name, None)
        queue.namespace.count_level(container.level, -1)
        invoker = self.invokers.get(container.invoker)
        if invoker is not None:
            del invoker.containers[name]
            invoker.used_mb -= queue.spec.memory_mb
            invoker.creations -= creating
        container.free = 0

    def lower_level(self, container: ContainerEntry) -> bool:
        """Let a container serve what is less deep, where the reserve allows; tell if it did."""
        namespace = container.queue.namespace
        former = container.level
        namespace.count_level(former, -1)
        level = 0
        while level < former:
            namespace.count_level(level, 1)
            if namespace.room(level) >= 0:
                break
            namespace.count_level(level, -1)
            level += 1
        else:
            namespace.count_level(former, 1)
        container.level = level
        return level < former

    # --- invokers -----------------------------------------------------------------------------

    def report(self, report: InvokerReported) -> bool:
        """Take an invoker's report; tell whether it is new here.

        A new one has to tell of every open queue first.  Cost: O(queues), of a copy, for that one.
        """
        entry = self.invokers.get(report.invoker)
        if entry is not None:
            entry.report = report
            return False
        entry = InvokerEntry(report)
        self.invokers[report.invoker] = entry
        entry.unheard = dict(self.queues)
        entry.unasked = dict(self.queues)
        for queue in self.reserving.values():
            # It may have been gone while places there were asked for.
            there = [spot for spot in queue.reserving if spot.invoker == report.invoker]
            entry.used_mb += len(there) * queue.spec.memory_mb
        return True

    def views(self, queue: str = "") -> list[InvokerView]:
        """Return what ``placement`` looks at, for a queue or for any.  Cost: O(invokers)."""
        views = []
        for name, entry in self.invokers.items():
            if queue in entry.unheard:
                continue
            report = entry.report
            free_mb = report.memory_mb - report.elsewhere_mb - entry.used_mb
            creation_us = report.creation_us or limits.CREATION_US
            views.append(
                InvokerView(name, free_mb, entry.creations, creation_us, report.creations_per_s)
            )
        return views

    def creation_us(self) -> int:
        """Return when a container asked for now would be ready at the best invoker.

        Cost: O(invokers), as small as it can be: each look at a queue asks.
        """
        least_us = -1
        for entry in self.invokers.values():
            report = entry.report
            created_us = report.creation_us or limits.CREATION_US
            there_us = ready_us(entry.creations, created_us, report.creations_per_s)
            if least_us < 0 or there_us < least_us:
                least_us = there_us
        return limits.CREATION_US if least_us < 0 else least_us

    def largest_mb(self) -> int:
        """Return the most memory that an invoker has for us, in use or not; 0 without invokers."""
        largest_mb = 0
        for number, entry in enumerate(self.invokers.values()):
            report = entry.report
            there_mb = report.memory_mb - report.elsewhere_mb
            if number == 0 or there_mb > largest_mb:
                largest_mb = there_mb
        return largest_mb

    def whole_mb(self) -> int:
        """Return the memory of the largest invoker, whoever uses it; 0 without invokers."""
        return max([entry.report.memory_mb for entry in self.invokers.values()], default=0)

    def places(self, memory_mb: int) -> int:
        """Return how many containers of that size all invokers could hold, were they empty."""
        there = [max(0, entry.report.memory_mb) for entry in self.invokers.values()]
        # No count is larger: reports may say anything.
        return min(limits.COUNT_MAX, sum([mb // memory_mb for mb in there]))

    def swaps_per_s(self) -> float:
        """Return what all engines manage together; 0.0 while that of one is unknown."""
        rates = [entry.report.creations_per_s for entry in self.invokers.values()]
        return sum(rates) if rates and min(rates) > 0.0 else 0.0

    # --- proof --------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert that everything is counted wherever it counts.  Cost: O(everything)."""
        for key, queue in self.queues.items():
            assert key == queue.spec.queue
            assert all(key in self.invokers[name].unheard for name in queue.adopting)  # S5
            queue.line.check()
            delivered: dict[str, Activation] = {}
            for container in (*queue.serving.values(), *queue.in_progress.values()):
                assert container.queue is queue
                assert not delivered.keys() & container.outstanding.keys()
                delivered.update(container.outstanding)
            assert delivered == queue.delivered
            times = [activation.delivered_us for activation in queue.delivered.values()]
            assert times == sorted(times)
            assert not queue.in_progress.keys() & queue.serving.keys()
            mine = {**queue.in_progress, **queue.serving}
            staying = {name for name, c in mine.items() if c.keep and not c.leaving}
            assert queue.kept.keys() == staying
            entered = [container.entered_us for container in queue.in_progress.values()]
            assert entered == sorted(entered)
            assert queue.leaving.keys() <= queue.serving.keys()
            assert queue.paused.keys() <= queue.serving.keys() - queue.leaving.keys()
            assert not any(c.free or c.outstanding for c in queue.paused.values())  # C8
        for name, container in self.containers.items():
            queue = container.queue
            assert self.queues.get(queue.spec.queue) is queue
            assert (name in queue.in_progress) != (name in queue.serving)
            assert (name in queue.in_progress) == (name in queue.namespace.in_progress)
            assert (name in queue.serving) == (name in queue.namespace.serving)
            assert (name in queue.serving) == (container.serving_since_us >= 0)
            assert (name in queue.leaving) == container.leaving
            assert 0 <= container.free <= queue.spec.concurrency - len(container.outstanding)  # S1
            assert container.free == 0 or (container.stacked and name not in queue.leaving)
        for namespace in self.namespaces.values():
            own = [q for q in self.queues.values() if q.namespace is namespace]
            assert namespace.queues == len(own)
            assert namespace.reserving == sum(len(q.reserving) for q in own)
            levels: dict[int, int] = {}
            for queue in own:
                entries = (*queue.in_progress.values(), *queue.serving.values())
                all_levels = [c.level for c in entries]
                all_levels += [queue.reserving_level] * len(queue.reserving)
                for level in all_levels:
                    levels[level] = levels.get(level, 0) + 1
            levels.pop(0, None)
            assert namespace.levels == levels
        reserved_mb = dict.fromkeys(self.invokers, 0)
        for queue in self.queues.values():
            for spot in queue.reserving:
                if spot.invoker in reserved_mb:
                    reserved_mb[spot.invoker] += queue.spec.memory_mb
        assert self.reserving == {key: q for key, q in self.queues.items() if q.reserving}
        for name, invoker in self.invokers.items():
            for key, queue in invoker.unheard.items():
                assert self.queues[key] is queue
            there = invoker.containers.values()
            used_mb = sum(c.queue.spec.memory_mb for c in there) + reserved_mb[name]
            assert invoker.used_mb == used_mb  # B1
            assert invoker.creations == sum(c.container in c.queue.in_progress for c in there)
