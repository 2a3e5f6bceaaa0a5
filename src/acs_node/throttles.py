"""How much a namespace may ask for: invocations and fires a minute, and invocations at once.

A minute is one of the calendar, and what is refused counts as well.  A namespace without such
limits has no throttle, and costs nothing.  Where several controllers serve a namespace, each adds
what the others have told of themselves (``cluster.shared_limits``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .action_schema import SystemLimits
from .entity_types import Identity
from .errors import ApiError

__all__ = ["Throttle", "Throttles", "Usage"]

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a namespace has under way, and what it has asked for in ``minute`` of the calendar."""

    in_flight: int = 0
    minute: int = 0
    invocations: int = 0
    fires: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return both together: of two minutes the later one counts."""
        of = [each for each in (self, other) if each.minute == max(self.minute, other.minute)]
        return Usage(
            self.in_flight + other.in_flight,
            of[0].minute,
            sum(each.invocations for each in of),
            sum(each.fires for each in of),
        )


_NOTHING = Usage()


class _Rate:
    """Counts what is asked for in the present minute."""

    def __init__(self) -> None:
        self.minute = 0
        self.count = 0

    def admit(self, allowed: int | None, now_ms: int, elsewhere: int, of_minute: int) -> None:
        """Count one more, beside those of other controllers in a minute.

        Raises: ApiError 429 when they are too many.
        """
        if allowed is None:
            return
        minute, into_ms = divmod(now_ms, _MINUTE_MS)
        if minute != self.minute:
            self.minute, self.count = minute, 0
        self.count += 1
        count = self.count + (elsewhere if minute == of_minute else 0)
        if count > allowed:
            raise _too_many(
                f"Too many requests in the last minute (count: {count}, allowed: {allowed}).",
                -(-(_MINUTE_MS - into_ms) // 1000),
            )


class Throttle:
    """One namespace's; ``limits`` are what holds for it now."""

    def __init__(self, limits: SystemLimits) -> None:
        self.limits = limits
        self.in_flight: set[str] = set()
        """Ids of the activations that were asked for here and have not ended."""
        self.elsewhere = Usage()
        self._invocations = _Rate()
        self._fires = _Rate()

    def admit(self, now_ms: int) -> None:
        """Count an invocation.  Raises: ApiError 429, saying which limit and when to come back."""
        others = self.elsewhere
        self._invocations.admit(
            self.limits.invocations_per_minute, now_ms, others.invocations, others.minute
        )
        allowed = self.limits.concurrent_invocations
        if allowed is None:
            return
        count = len(self.in_flight) + others.in_flight
        if count >= allowed:
            raise _too_many(
                f"Too many concurrent requests in flight (count: {count}, allowed: {allowed}).", 1
            )

    def admit_fire(self, now_ms: int) -> None:
        """Count the fire of a trigger.  Raises: ApiError 429."""
        others = self.elsewhere
        self._fires.admit(self.limits.fires_per_minute, now_ms, others.fires, others.minute)

    def usage(self) -> Usage:
        """Return what is asked for here."""
        minute = max(self._invocations.minute, self._fires.minute)
        return Usage(
            len(self.in_flight),
            minute,
            self._invocations.count if self._invocations.minute == minute else 0,
            self._fires.count if self._fires.minute == minute else 0,
        )


class Throttles:
    """The throttles of all namespaces that have one."""

    def __init__(self, system: SystemLimits) -> None:
        self._system = system
        self._by_namespace: dict[str, Throttle] = {}
        self._elsewhere: Mapping[str, Usage] = {}

    def of(self, identity: Identity) -> Throttle | None:
        """Return a namespace's throttle, with the limits of now; None: it has no such limit."""
        limits = self._system.of_namespace(identity.limits)
        rates = (
            limits.invocations_per_minute,
            limits.concurrent_invocations,
            limits.fires_per_minute,
        )
        if rates == (None, None, None):
            self._by_namespace.pop(identity.namespace, None)
            return None
        throttle = self._by_namespace.setdefault(identity.namespace, Throttle(limits))
        throttle.limits = limits
        throttle.elsewhere = self._elsewhere.get(identity.namespace, _NOTHING)
        return throttle

    def usage(self) -> dict[str, Usage]:
        """Return what is asked for here, by namespace; without those that ask for nothing."""
        usages = {name: each.usage() for name, each in self._by_namespace.items()}
        return {name: usage for name, usage in usages.items() if usage != _NOTHING}

    def set_elsewhere(self, usages: Mapping[str, Usage]) -> None:
        """Take over what is asked for at all other controllers, by namespace."""
        self._elsewhere = usages
        for name, throttle in self._by_namespace.items():
            throttle.elsewhere = usages.get(name, _NOTHING)


def _too_many(text: str, retry_after_s: int) -> ApiError:
    return ApiError(429, text, (("Retry-After", str(max(1, retry_after_s))),))
