# cython: nonecheck=True
"""Places and memory: who is asked for them, who has them, and who has to give them back.

The line of those who starve is kept in ``starving``, the choice of a giver in ``fairness``, the
choice of an invoker in ``placement``; here they are applied to what the ledger has.
"""

from __future__ import annotations

from . import fairness, limits
from .effects import Place, Reserve
from .events import FailureClass, HungerElsewhere
from .ledger import ContainerEntry, QueueEntry
from .placement import place
from .scheduler_delivery import SchedulerDelivery

_POOREST = (-1, -1, "")
_SHORTEST = (-1, "")
_RECOVERABLE = int(FailureClass.RECOVERABLE)


class SchedulerRoom(SchedulerDelivery):
    """Reservations, evictions and give-backs; see the module."""

    def _reserve(
        self, queue: QueueEntry, count: int, give_back: bool, now_us: int, out: list[object]
    ) -> bool:
        """Ask for up to ``count`` places within the caps; tell whether memory for some lacks.

        With ``give_back`` also those who work are asked for it.
        """
        level = queue.namespace.level_for(queue.line.depth())
        room = queue.namespace.room(level) if level >= 0 else 0
        if queue.spec.action_limit is not None:
            held = len(queue.serving) + len(queue.in_progress)
            room = min(room, queue.spec.action_limit - held)
        count = min(count, room, limits.RESERVE_MAX)
        if count <= 0:
            return False
        memory_mb = queue.spec.memory_mb
        largest_mb = self._ledger.largest_mb()
        if memory_mb > largest_mb:
            if memory_mb <= self._ledger.whole_mb():
                self._starving.lack(queue.spec.queue, True)  # others hold it
            cause = f"no invoker has {memory_mb} MB (the largest: {largest_mb} MB)"
            self._failed(queue, cause, _RECOVERABLE, now_us, out)
            return False
        names = []
        if not self._is_overtaking(queue, False, now_us):
            names = place(self._ledger.views(queue.spec.queue), memory_mb, count)
        if len(names) < count:
            self._make_room(queue, count - len(names), False, give_back, now_us, out)
        if names:
            # It is served: what it still lacks, it lacks from now on, behind those who wait.
            if self._starving.lacks_memory(queue.spec.queue):
                self._starving.lack(queue.spec.queue, True)  # until that is certain
            self._starving.drop(queue.spec.queue)
            places = []
            for name in names:
                self._serial += 1
                places.append(Place(f"{self.config.name}-{self._serial}", name))
            serial = self._serial
            self._ledger.reserve(queue, serial, tuple(places), level, now_us)
            self._wake(queue, now_us + self._reserve_answer_us)
            spec = queue.spec
            out.append(
                Reserve(spec.queue, queue.epoch, serial, spec.namespace, memory_mb, queue.reserving)
            )
        return len(names) < count

    def _starve(self, queue: QueueEntry, lacks_memory: bool) -> bool:
        """Note that the queue found no room, or how rich it has become meanwhile.

        Tell whether its place in the line is another one now.
        """
        share, containers = self._wealth(queue)
        spec = queue.spec
        return self._starving.put(spec.queue, spec.namespace, lacks_memory, share, containers)

    def _line(self, namespace: str | None) -> list[QueueEntry]:
        """Return who is first in the line for a place of the namespace; None: for memory.

        Those in front stand by what they have now, the others by what they had when they were
        looked at, which they are at each interval.  Cost: O(LINE_MAX).
        """
        if not self._starving:
            return []
        names = self._starving.first(namespace)
        moved = False
        for name in names:
            moved |= self._starve(self._queues[name], self._starving.lacks_memory(name))
        return [
            self._queues[name] for name in (self._starving.first(namespace) if moved else names)
        ]

    def _needier(self, queue: QueueEntry, in_namespace: bool) -> list[QueueEntry]:
        """Return the first LINE_MAX queues that room belongs to before this one.

        First those of the namespace with the smaller share, then those with fewer containers,
        then those that starve longer.
        """
        line = self._line(queue.spec.namespace if in_namespace else None)
        if queue in line:
            return line[: line.index(queue)]
        own = *self._wealth(queue), self._starving.since(queue.spec.queue)
        since = self._starving.since
        return [q for q in line if (*self._wealth(q), since(q.spec.queue)) < own]

    def _wealth(self, queue: QueueEntry) -> tuple[float, int]:
        """Return the share of the queue's namespace, and the queue's own containers."""
        namespace = queue.namespace
        held = namespace.held()
        own = len(queue.serving) - len(queue.leaving) + len(queue.in_progress)
        return held / namespace.weight, own + len(queue.reserving)

    def _is_overtaking(self, queue: QueueEntry, in_namespace: bool, now_us: int) -> bool:
        """Tell whether memory, or a place of the namespace, belongs to another queue first.

        To one that could take it now, or to a poorer one of another scheduler.  Calls wait for no
        place behind others.
        """
        elsewhere = self._starving.elsewhere
        if not (self._starving or elsewhere.hungers) or (in_namespace and queue.line.depth() > 0):
            return False
        if elsewhere.hungers:
            spec = queue.spec
            wealth = *self._wealth(queue), self._starving.since(spec.queue)
            if elsewhere.comes_before(spec.queue, spec.namespace, in_namespace, wealth):
                return True
        return bool(
            [
                other
                for other in self._needier(queue, in_namespace)
                # A place alone is no help to who lacks memory.
                if not (in_namespace and self._starving.lacks_memory(other.spec.queue))
                and other.line.waiting > 0
                and not other.reserving
                and other.retry_us <= now_us
            ]
        )

    def _make_room(
        self,
        queue: QueueEntry,
        count: int,
        in_namespace: bool,
        give_back: bool,
        now_us: int,
        out: list[object],
    ) -> None:
        """See to it that ``count`` containers get room: from who idles, else from who has most.

        Floors are spared, except for calls: these go before them, or callers might wait for ever.

        With ``in_namespace`` the namespace's cap is what binds, else the memory.  What is on its
        way out already is counted, for the queues that it belongs to first, so that a second
        look releases nothing more.
        """
        needier = self._needier(queue, in_namespace)
        if len(needier) == limits.LINE_MAX:
            return  # it is made for those before it, who get it
        containers = queue.namespace.serving if in_namespace else self._containers
        if self._scanned > 0 and self._scanned + len(containers) > limits.ROOM_SCAN_MAX:
            # Others of this step were looked at first; a little later it is this one.
            self._wake(queue, now_us + max(1, self._backlog_interval_us))
            return
        self._scanned += len(containers)
        # A container that goes gives its place to levels from its own on.
        level = min(queue.line.depth(), queue.namespace.spare())
        wanted = count * (1 if in_namespace else queue.spec.memory_mb)
        for other in needier:
            wanted += 1 if in_namespace else other.spec.memory_mb
        calls = bool(self._calls.below)
        # Calls cannot wait: others wait for them.
        has_none = self._there(queue) == 0 or queue.line.depth() > 0
        creation_us = self._ledger.creation_us()
        idle = []
        for container in containers.values():
            other = container.queue
            if in_namespace and container.level > level:
                continue
            if container.leaving:
                if calls and self._calls.hold(container):
                    continue  # it goes after the call that needs the room
                wanted -= 1 if in_namespace else other.spec.memory_mb
            elif (
                (container.free > 0 or (other.paused and container.container in other.paused))
                and not container.outstanding
                and other is not queue
                and (not container.keep or queue.line.depth() > 0)
                and (other.line.waiting == 0 or container.level > other.line.depth())
                and (has_none or _can_spare(container, creation_us, now_us))
            ):
                idle.append((container.idle_since_us, container.container))
        idle.sort()
        for _, name in idle:
            if wanted <= 0:
                return
            container = self._containers[name]
            wanted -= 1 if in_namespace else container.queue.spec.memory_mb
            self._release(container, f"{queue.spec.action} needs the room", now_us, out)
        # Who works gives nothing to who has no work: the original's rule asks for a container then.
        if wanted > 0 and give_back and queue.line.waiting > 0 and self.config.give_back:
            self._give_back(queue, in_namespace, now_us, out)

    def _give_back(
        self, queue: QueueEntry, in_namespace: bool, now_us: int, out: list[object]
    ) -> None:
        """Let the richest queue give a container to this one, after the run that is in it."""
        spares_floors = queue.line.depth() == 0
        places = (queue.namespace.serving, queue.namespace.in_progress)
        holders: dict[str, QueueEntry] = {}
        for where in places if in_namespace else (self._containers,):
            for container in where.values():
                holders[container.queue.spec.queue] = container.queue
        totals: dict[str, int] = {}
        richest: dict[str, tuple[int, int, str]] = {}
        longest: dict[str, tuple[int, str]] = {}
        containers = holder_count = 0
        # With a container of its own it takes no turns: within the namespace only who would have
        # more than it even afterwards gives one (``fairness.giver``).
        poorest = self._there(queue) + 2 if in_namespace and self._there(queue) > 0 else 0
        for name, other in holders.items():
            there = self._there(other)
            containers += there
            if len(other.serving) <= len(other.leaving):
                continue
            holder_count += 1
            namespace = other.spec.namespace
            totals[namespace] = totals.get(namespace, 0) + there
            if other is queue or there < poorest or not self._can_give(other, spares_floors):
                continue
            turn_us = self._turn_us(other, spares_floors, now_us)
            if (there, turn_us, name) > richest.get(namespace, _POOREST):
                richest[namespace] = (there, turn_us, name)
            if (turn_us, name) > longest.get(namespace, _SHORTEST):
                longest[namespace] = (turn_us, name)
        if not richest:
            return
        best = [name for _, _, name in richest.values()] + [name for _, name in longest.values()]
        holdings = [self._holding(self._queues[name], spares_floors, now_us) for name in best]
        # Everybody's turn has to come within the wait bound.
        rounds = 1 + (holder_count + len(self._starving)) // max(1, containers)
        turn_us = fairness.quantum_us(
            containers,
            self._ledger.creation_us(),
            self._ledger.swaps_per_s(),
            min(self._wait_max_us, queue.wait_max_us) // (2 * rounds),
        )
        needy = self._holding(queue, spares_floors, now_us)
        found = fairness.giver(holdings, needy, turn_us, in_namespace, totals)
        if found is None:
            return
        giver = self._queues[found.queue]
        for container in [*giver.paused.values(), *giver.serving.values()]:
            if _may_go(container, spares_floors) and not (
                self._calls.below and self._calls.hold(container)
            ):
                why = f"{queue.spec.action} has too few containers"
                self._release(container, why, now_us, out)
                return

    def _give_elsewhere(
        self, giver: QueueEntry, hunger: HungerElsewhere, now_us: int, out: list[object]
    ) -> None:
        """Let the asked queue give a container to another scheduler's, if it should.

        An idle one, as within a scheduler; else by the same rule of fairness, after the run that is
        in it.  One at a time: nobody is asked again while it is on its way out.
        """
        creation_us = self._ledger.creation_us()
        going = [c for c in giver.serving.values() if _may_go(c, True)]
        idle = [
            c
            for c in (*giver.paused.values(), *going)
            if _may_go(c, True)
            and not c.outstanding
            and giver.line.waiting == 0
            and (hunger.containers == 0 or _can_spare(c, creation_us, now_us))
        ]
        idle.sort(key=lambda c: c.idle_since_us)
        chosen = [*idle, *going]
        if giver.leaving or not chosen:
            return
        if not idle:
            entry = self._namespaces.get(hunger.namespace)
            weight = 1.0 if entry is None else entry.weight
            needy = fairness.Holding(
                hunger.queue, hunger.namespace, hunger.containers, weight=weight
            )
            turn_us = fairness.quantum_us(
                max(1, hunger.giver_containers),
                creation_us,
                self._ledger.swaps_per_s(),
                min(self._wait_max_us, giver.wait_max_us) // 4,
            )
            totals = {
                giver.spec.namespace: hunger.giver_containers,
                hunger.namespace: hunger.namespace_containers,
            }
            holding = self._holding(giver, True, now_us)
            in_namespace = not hunger.lacks_memory
            if fairness.giver([holding], needy, turn_us, in_namespace, totals) is None:
                return
        container = chosen[0]
        self._starving.elsewhere.given[container.container] = hunger.queue
        why = f"{hunger.queue} has too few containers"
        self._release(container, why, now_us, out)

    def _can_give(self, queue: QueueEntry, spares_floors: bool) -> bool:
        """Tell whether the queue has a serving container that may go for another queue."""
        if not queue.kept or not spares_floors:
            return True
        return bool([c for c in queue.serving.values() if _may_go(c, True)])

    def _holding(self, queue: QueueEntry, spares_floors: bool, now_us: int) -> fairness.Holding:
        return fairness.Holding(
            queue.spec.queue,
            queue.spec.namespace,
            self._there(queue),
            self._turn_us(queue, spares_floors, now_us),
            queue.namespace.weight,
        )

    def _there(self, queue: QueueEntry) -> int:
        """Count what the queue has and will have, without what is on its way out."""
        there = len(queue.serving) - len(queue.leaving) + len(queue.in_progress)
        if queue.line.depth() > 0:
            # What waits for a call is of no use to it; else two queues would seem equally rich.
            held = [c for c in queue.serving.values() if self._calls.hold(c)]
            there -= len([c for c in held if c.container not in queue.leaving])
        if queue.reserving and self._starving.elsewhere.lacking.get(queue.spec.queue, True):
            there += len(queue.reserving)  # not of one that was denied: it asks in vain again
        return there

    def _turn_us(self, queue: QueueEntry, spares_floors: bool, now_us: int) -> int:
        """Return how long the container that serves longest and may go has served; 0: none."""
        for container in queue.serving.values():
            if _may_go(container, spares_floors):
                return now_us - container.serving_since_us
        return 0


def _may_go(container: ContainerEntry, spares_floors: bool) -> bool:
    """Tell whether a serving container may be given back."""
    return not container.leaving and not (container.keep and spares_floors)


def _can_spare(container: ContainerEntry, creation_us: int, now_us: int) -> bool:
    """Tell whether the container idles for longer than its queue's work pauses.

    Else two queues that are both at work would take each other's only container in every pause
    between two calls, and each time one would be created.
    """
    pause_us = limits.SPARE_IDLE_MAX_US
    rate_per_s = container.queue.load.rate_per_s
    if rate_per_s * pause_us > limits.SPARE_GAPS * 1_000_000:
        pause_us = int(limits.SPARE_GAPS * 1_000_000 / rate_per_s)
    return now_us - container.idle_since_us >= max(creation_us, pause_us)
