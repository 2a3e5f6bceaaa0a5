"""Prewarmed sandboxes of an invoker: started before anybody asks, taken instead of a cold start.

How many of each kind and memory there should be, which one is taken, which go, and when a failed
start is tried again.  Whose memory they are in the way of is ``containers``' business, which owns
this and passes the time.  The rules are those of OpenWhisk's stem cells; what differs:

- their memory counts, and a sandbox is replaced only where it fits;
- the growth between two looks lasts until the next one, also when a sandbox breaks;
- failed starts are backed off, doubled each time; the original gives up after five.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .effects import PrewarmSandbox, Remove
from .events import QueueSpec

_NEVER = limits.TIME_MAX_US
_STARTING, _UP, _UNWANTED, _REMOVING = range(4)


@dataclass(frozen=True, slots=True)
class Prewarm:
    """How many sandboxes of one kind and memory stand ready.

    Args:
      kind, memory_mb: They are taken by containers of exactly these.
      count: How many from the start on.
      expiry_us: 0: always ``count``.  Else the number follows the demand: at each look those that
        were started so long ago go, and the number becomes (cold starts since the last look //
        ``threshold``) * ``increment``, within ``count_min`` and ``count_max``.
    Raises: ValueError that names the field, the value and the limit.
    """

    kind: str
    memory_mb: int
    count: int = 1
    expiry_us: int = 0
    count_min: int = 0
    count_max: int = 1
    threshold: int = 1
    increment: int = 1

    def __post_init__(self) -> None:
        if not 0 < len(self.kind) <= limits.NAME_MAX:
            raise ValueError(
                f"kind is {self.kind!r:.80}; it must have 1..{limits.NAME_MAX} letters"
            )
        for name, low, high in (
            ("memory_mb", 1, limits.TIME_MAX_US),
            ("count", 0, limits.PREWARM_MAX),
            ("expiry_us", 0, limits.TIME_MAX_US),
            ("count_max", 1, limits.PREWARM_MAX),
            ("count_min", 0, self.count_max),
            ("threshold", 1, limits.TIME_MAX_US),
            ("increment", 1, self.count_max),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be in {low}..{high}")


class _Stock:
    """The sandboxes of one ``Prewarm``: how many are wanted, and when to see to it."""

    def __init__(self, config: Prewarm) -> None:
        self.config = config
        self.wanted = config.count
        self.cold_starts = 0
        # Sandboxes that failed since one was last of use, and when to start those that miss.
        self.failures = 0
        self.due_us = 0


class _Sandbox:
    """A sandbox of nobody yet."""

    def __init__(self, stock: _Stock, expires_us: int) -> None:
        self.stock = stock
        self.state = _STARTING
        self.expires_us = expires_us


class PrewarmedSandboxes:
    """All prewarmed sandboxes of one invoker, until they are taken or confirmed as removed.

    Invariants: C9, C10 (docs/invariants.md).  Cost: O(sandboxes) each, where nothing else is said.
    """

    def __init__(self, invoker: str, prewarm: tuple[Prewarm, ...], check_us: int) -> None:
        self._invoker = invoker
        self._stocks = [_Stock(config) for config in prewarm]
        # The oldest first.
        self._sandboxes: dict[str, _Sandbox] = {}
        self._check_us = check_us if any(config.expiry_us for config in prewarm) else 0
        self._next_check_us = _NEVER if self._check_us == 0 else -1  # -1: with the first fill
        self._serial = 0

    def used_mb(self) -> int:
        """Return the memory of all, until the engine confirmed the removal."""
        return sum([s.stock.config.memory_mb for s in self._sandboxes.values()])

    def going_mb(self) -> int:
        """Return the memory of those that are on their way out."""
        going = [s for s in self._sandboxes.values() if s.state in (_UNWANTED, _REMOVING)]
        return sum([sandbox.stock.config.memory_mb for sandbox in going])

    def counts(self) -> tuple[int, int, int]:
        """Return how many start, stand ready, and go."""
        states = [sandbox.state for sandbox in self._sandboxes.values()]
        starting, ready = states.count(_STARTING), states.count(_UP)
        return starting, ready, len(states) - starting - ready

    def next_deadline_us(self) -> int:
        """Return when ``look`` is wanted next.  Cost: O(kinds)."""
        return min([s.due_us for s in self._stocks] + [max(0, self._next_check_us)], default=_NEVER)

    def take(self, spec: QueueSpec, now_us: int) -> str:
        """Return the oldest sandbox of the kind and memory, which is nobody's here any more.

        Returns "" where none stands ready; that counts as a cold start.
        """
        for stock in self._stocks:
            config = stock.config
            if (config.kind, config.memory_mb) != (spec.kind, spec.memory_mb):
                continue
            for name, sandbox in self._sandboxes.items():
                if sandbox.stock is stock and sandbox.state == _UP:
                    del self._sandboxes[name]
                    stock.failures = 0
                    stock.due_us = now_us
                    return name
            stock.cold_starts += 1
        return ""

    def evict(self, wanted_mb: int, now_us: int, out: list[object]) -> None:
        """Let go sandboxes of so much memory, the oldest first, those that start last."""
        for state in (_UP, _STARTING):
            for name, sandbox in self._sandboxes.items():
                if wanted_mb > 0 and sandbox.state == state:
                    self._let_go(name, sandbox, "its memory is needed", out)
                    wanted_mb -= sandbox.stock.config.memory_mb
                    due_us = now_us + limits.RETRY_MAX_US
                    sandbox.stock.due_us = min(sandbox.stock.due_us, due_us)

    def look(self, free_mb: int, now_us: int, out: list[object]) -> None:
        """Do what is due: let the expired go, set the numbers anew, start what misses and fits."""
        if self._next_check_us <= now_us:
            if self._next_check_us >= 0:
                self._check(now_us, out)
            self._next_check_us = now_us + self._check_us
        for stock in self._stocks:
            if now_us < stock.due_us:
                continue
            config = stock.config
            alive = [s.stock is stock and s.state <= _UP for s in self._sandboxes.values()]
            missing = stock.wanted - sum(alive)
            stock.due_us = _NEVER
            for _ in range(missing):
                if config.memory_mb > free_mb:
                    # Not as soon as there is room: that is made for somebody.
                    stock.due_us = now_us + limits.RETRY_MAX_US
                    break
                free_mb -= config.memory_mb
                self._serial += 1
                name = f"{self._invoker}-prewarm-{self._serial}"
                expires_us = now_us + config.expiry_us if config.expiry_us else _NEVER
                self._sandboxes[name] = _Sandbox(stock, expires_us)
                out.append(PrewarmSandbox(name, config.kind, config.memory_mb))

    def _check(self, now_us: int, out: list[object]) -> None:
        expired = [(s.expires_us, n) for n, s in self._sandboxes.items() if s.state == _UP]
        expired = sorted([(us, name) for us, name in expired if us <= now_us])
        for _, name in expired[: limits.PREWARM_EXPIRIES_MAX]:
            self._let_go(name, self._sandboxes[name], "nobody took it", out)
        for stock in self._stocks:
            config = stock.config
            if config.expiry_us:
                grown = stock.cold_starts // config.threshold * config.increment
                stock.wanted = min(max(config.count_min, grown), config.count_max)
            stock.cold_starts = 0
            stock.failures = 0
            stock.due_us = now_us

    # --- what the node reports; each tells whether the sandbox is one of these -----------------

    def ready(self, name: str, out: list[object]) -> bool:
        """Let a sandbox stand ready, or go, if it was not wanted any more by then."""
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            return False
        if sandbox.state == _STARTING:
            sandbox.state = _UP
        elif sandbox.state == _UNWANTED:
            sandbox.state = _REMOVING
            out.append(Remove(name, "it is not needed any more"))
        return True

    def failed(self, name: str, now_us: int) -> bool:
        """Forget a sandbox that could not be started, and wait before the next try."""
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            return False
        if sandbox.state in (_STARTING, _UNWANTED):
            del self._sandboxes[name]
            self._missed(sandbox.stock, now_us)
        return True

    def broke(self, name: str, cause: str, now_us: int, out: list[object]) -> bool:
        """Let a sandbox go that has ended, and start another after a while."""
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            return False
        if sandbox.state <= _UP:
            self._let_go(name, sandbox, cause, out)
            self._missed(sandbox.stock, now_us)
        return True

    def removed(self, name: str, now_us: int) -> bool:
        """Forget a sandbox whose removal the engine confirmed."""
        sandbox = self._sandboxes.pop(name, None)
        if sandbox is None:
            return False
        if sandbox.state <= _UP:  # nobody had asked for it
            self._missed(sandbox.stock, now_us)
        return True

    def leave_all(self, out: list[object]) -> None:
        """Let all go, and start no more."""
        self._next_check_us = _NEVER
        for stock in self._stocks:
            stock.wanted = 0
            stock.due_us = _NEVER
        for name, sandbox in self._sandboxes.items():
            if sandbox.state <= _UP:
                self._let_go(name, sandbox, "the invoker is draining", out)

    def _let_go(self, name: str, sandbox: _Sandbox, cause: str, out: list[object]) -> None:
        if sandbox.state == _STARTING:
            sandbox.state = _UNWANTED
        else:
            sandbox.state = _REMOVING
            out.append(Remove(name, cause))

    def _missed(self, stock: _Stock, now_us: int) -> None:
        """Start another one, the later the more often that has failed."""
        if stock.wanted == 0:
            return
        wait_us = min(limits.RETRY_MIN_US << min(stock.failures, 30), limits.RETRY_MAX_US)
        stock.failures += 1
        stock.due_us = now_us + wait_us
