"""How much a namespace may ask for: invocations and fires a minute, and invocations at once.

A minute is one of the calendar, and what is refused counts as well.  A namespace without such
limits has no throttle, and costs nothing.
"""

from __future__ import annotations

from .action_schema import SystemLimits
from .entity_types import Identity
from .errors import ApiError

__all__ = ["Throttle", "Throttles"]

_MINUTE_MS = 60_000


class _Rate:
    """Counts what is asked for in the present minute."""

    def __init__(self) -> None:
        self._minute = 0
        self._count = 0

    def admit(self, allowed: int | None, now_ms: int) -> None:
        """Count one more.  Raises: ApiError 429 when they are too many."""
        if allowed is None:
            return
        minute, into_ms = divmod(now_ms, _MINUTE_MS)
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        if self._count > allowed:
            raise _too_many(
                f"Too many requests in the last minute (count: {self._count}, allowed: {allowed}).",
                -(-(_MINUTE_MS - into_ms) // 1000),
            )


class Throttle:
    """One namespace's; ``limits`` are what holds for it now."""

    def __init__(self, limits: SystemLimits) -> None:
        self.limits = limits
        self.in_flight: set[str] = set()
        """Ids of the activations that were asked for and have not ended."""
        self._invocations = _Rate()
        self._fires = _Rate()

    def admit(self, now_ms: int) -> None:
        """Count an invocation.  Raises: ApiError 429, saying which limit and when to come back."""
        self._invocations.admit(self.limits.invocations_per_minute, now_ms)
        allowed = self.limits.concurrent_invocations
        if allowed is not None and len(self.in_flight) >= allowed:
            count = len(self.in_flight)
            raise _too_many(
                f"Too many concurrent requests in flight (count: {count}, allowed: {allowed}).", 1
            )

    def admit_fire(self, now_ms: int) -> None:
        """Count the fire of a trigger.  Raises: ApiError 429."""
        self._fires.admit(self.limits.fires_per_minute, now_ms)


class Throttles:
    """The throttles of all namespaces that have one."""

    def __init__(self, system: SystemLimits) -> None:
        self._system = system
        self._by_namespace: dict[str, Throttle] = {}

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
        return throttle


def _too_many(text: str, retry_after_s: int) -> ApiError:
    return ApiError(429, text, (("Retry-After", str(max(1, retry_after_s))),))
