"""What lies between a topic of the baseline and its pool, and what a balancer hears back.

``FedPool`` is an invoker of the baseline as its node drives it: work comes as ``Push`` through the
feed, and of each activation that has left comes one ``Acknowledged``.  It leaves out how both
travel.
"""

from __future__ import annotations

from collections import deque

from . import limits
from .effects import Cause, Reject
from .events import Activation, DrainRequested, Event, Outcome, RunEnded, refused_time
from .sharding_pool import Processed, Push, PushPool, PushPoolConfig

_NEVER = limits.TIME_MAX_US
_PLATFORM_ERROR = int(Outcome.PLATFORM_ERROR)


class Acknowledged(Event):
    """The activation has left its invoker: the balancer frees its slot.

    ``system_error``: it says nothing good of the invoker.
    """

    def __init__(self, invoker: str, activation_id: str, system_error: bool) -> None:
        self.invoker = invoker
        self.activation_id = activation_id
        self.system_error = system_error


class Feed:
    """What lies between an invoker's topic and its pool: it lets through what the pool asks for.

    Args:
      memory_mb: Of the invoker; concurrency_max: the largest that an action may have.
    """

    def __init__(self, memory_mb: int, concurrency_max: int = 1) -> None:
        containers = memory_mb // limits.PUSH_MEMORY_UNIT_MB
        several = int(containers * concurrency_max * limits.PUSH_PEEK_FACTOR)
        self.capacity_max = max(containers, several)
        self.capacity = self.capacity_max
        self.topic: deque[Push] = deque()

    def offer(self, push: Push) -> list[Push]:
        """Add to the topic; return what the pool gets now."""
        self.topic.append(push)
        return self._through()

    def processed(self) -> list[Push]:
        """Let one more through; return what the pool gets now."""
        self.capacity = min(self.capacity + 1, self.capacity_max)
        return self._through()

    def _through(self) -> list[Push]:
        count = min(self.capacity, len(self.topic))
        self.capacity -= count
        return [self.topic.popleft() for _ in range(count)]


class FedPool:
    """A pool with its feed; in all else as the pool.  ``check`` says what holds."""

    def __init__(self, config: PushPoolConfig, concurrency_max: int = 1) -> None:
        self.config = config
        self.pool = PushPool(config)
        self.feed = Feed(config.memory_mb, concurrency_max)
        self._now_us = 0
        self._draining = False

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Raises: as ``PushPool.step``; nothing changed.
        """
        if not self._now_us <= now_us <= _NEVER:
            raise refused_time(now_us, self._now_us)
        out: list[object] = []
        todo: list[Event] = []
        if isinstance(event, Push):
            if self._draining:
                self._refuse(event.activation, out)
            else:
                todo += self.feed.offer(event)
        else:
            todo.append(event)
        if isinstance(event, DrainRequested):
            self._draining = True
            while self.feed.topic:
                self._refuse(self.feed.topic.popleft().activation, out)
        for each in todo:  # which become more on the way
            for effect in self.pool.step(each, now_us):
                if isinstance(effect, Processed):
                    todo += self.feed.processed()
                    continue
                out.append(effect)
                if isinstance(effect, Reject):
                    self._left(effect.activation, True, out)
        self._now_us = now_us
        if isinstance(event, RunEnded):
            error = event.outcome == _PLATFORM_ERROR
            out.append(Acknowledged(self.config.invoker, event.activation_id, error))
        return out

    def next_deadline_us(self) -> int | None:
        """Return when ``TimeReached`` is wanted next, or earlier; None when nothing is due."""
        return self.pool.next_deadline_us()

    def counts(self) -> dict[str, int]:
        """Return those of the pool, ``created`` as one number, and what waits in the topic."""
        counts = self.pool.counts()
        created = counts["cold_starts"] + counts["recreated_starts"] + counts["prewarmed_starts"]
        return counts | {"created": created, "topic": len(self.feed.topic)}

    def check(self) -> None:
        """Assert that nothing waits in the topic of what may go through."""
        self.pool.check()
        assert 0 <= self.feed.capacity <= self.feed.capacity_max
        assert not (self.feed.topic and self.feed.capacity)

    def _refuse(self, activation: Activation, out: list[object]) -> None:
        out.append(Reject(activation, Cause.CLOSED, "the invoker is draining", 0))
        self._left(activation, True, out)

    def _left(self, activation: Activation, error: bool, out: list[object]) -> None:
        out.append(Acknowledged(self.config.invoker, activation.activation_id, error))
