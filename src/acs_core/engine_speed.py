"""How fast a sandbox engine creates containers, as its invoker tells the schedulers.

Two numbers, because an engine does several at once: how long one takes that has the engine to
itself, and how many a second come out of it while several are under way.  Pure: told of
beginnings and ends.  What follows from them is the business of ``placement`` and ``demand``.
"""

from __future__ import annotations

from .limits import CREATION_MAX_US, CREATIONS_MIN_PER_S, ENGINE_SPAN_MAX


class EngineSpeed:
    """Measures creations from outside, by when they begin and end.

    ``creation_us``: mean time of a creation alone, 0 while unknown.  Until one was alone it is
    the shortest of the others, for they took no less.

    ``creations_per_s``: creations over time, of spans in which several were under way at once,
    the later ones counting more; 0.0 while unknown.  A span ends when nothing is under way, or
    after ``ENGINE_SPAN_MAX`` creations.  One with a failure is left out: it says how long a
    refusal or a time-out takes.
    """

    def __init__(self) -> None:
        self.creation_us = 0
        self.creations_per_s = 0.0
        # By name: when it began, and whether it was alone so far.
        self._under_way: dict[str, tuple[int, bool]] = {}
        self._was_alone = False  # one has been, so that creation_us is measured
        self._span_since_us = 0
        self._span_count = 0
        self._span_overlaps = False
        self._span_failed = False
        self._count = 0.0
        self._time_us = 0.0

    def begin(self, container: str, now_us: int) -> None:
        """Note that the engine was asked for a container.  Cost: O(creations under way)."""
        if not self._under_way:
            self._start_span(now_us)
        else:
            self._span_overlaps = True
            for other, (since_us, _) in self._under_way.items():
                self._under_way[other] = (since_us, False)
        self._under_way[container] = (now_us, not self._under_way)

    def end(self, container: str, now_us: int, created: bool) -> None:
        """Note that a creation which ``begin`` was told of has ended, well or not.

        Raises: KeyError for one that is not under way; nothing changed.
        """
        since_us, alone = self._under_way.pop(container)
        if created:
            self._span_count += 1
            self._took(min(max(1, now_us - since_us), CREATION_MAX_US), alone)
        else:
            self._span_failed = True
        if not self._under_way or self._span_count == ENGINE_SPAN_MAX:
            self._end_span(now_us)
            self._start_span(now_us)

    def _took(self, took_us: int, alone: bool) -> None:
        if not alone:
            if not self._was_alone:
                self.creation_us = min(self.creation_us or took_us, took_us)
        elif self._was_alone:
            self.creation_us = (3 * self.creation_us + took_us) // 4
        else:
            self.creation_us = took_us
            self._was_alone = True

    def _start_span(self, now_us: int) -> None:
        self._span_since_us = now_us
        self._span_count = 0
        self._span_overlaps = len(self._under_way) > 1
        self._span_failed = False

    def _end_span(self, now_us: int) -> None:
        if self._span_failed or not self._span_overlaps:
            return
        self._count = self._count / 2 + self._span_count
        self._time_us = self._time_us / 2 + max(1, now_us - self._span_since_us)
        self.creations_per_s = max(CREATIONS_MIN_PER_S, 1_000_000 * self._count / self._time_us)
