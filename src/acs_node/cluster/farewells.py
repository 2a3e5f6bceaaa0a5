"""The end of a container, told when nothing that was delivered to it is on its way any more.

A scheduler that hears that a container is gone cannot know what became of its last delivery, and
ends it as *unknown*.  But an invoker says that a container is *leaving* before it removes it, and
gives back what still comes for it.  So its scheduler answers that with a ``Release``, behind
everything that it has delivered there; and the invoker tells the end only then: by that time all of
it has been given back, and is delivered elsewhere.

A scheduler of an earlier release answers nothing, and is not waited for longer than ``ANSWER_S``
while its link is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from acs_core.events import ContainerGone

from ..peer_link import SILENCE_S

ANSWER_S: Final = SILENCE_S + 1.0
"""How long the answer to a leave is waited for: a link that has broken is down by then."""


class LinkState(Protocol):
    """What is to be known of a link."""

    @property
    def up(self) -> bool:
        """Whether there is a stream."""
        ...


L = TypeVar("L", bound=LinkState)


@dataclass(slots=True)
class _Leave(Generic[L]):
    """A container whose leave was told on ``link``, and its end, if that has to wait."""

    link: L
    gone: ContainerGone | None = None
    timer: asyncio.TimerHandle | None = None


class Farewells(Generic[L]):
    """Containers that leave; ``tell`` sends their end to the scheduler behind a link."""

    def __init__(self, tell: Callable[[L, ContainerGone], None]) -> None:
        self._tell = tell
        self._leaves: dict[str, _Leave[L]] = {}

    def __len__(self) -> int:
        return len(self._leaves)

    def leaving(self, container: str, link: L) -> None:
        """A container takes no more work, and this was told; said anew to who adopts it."""
        self._leaves[container] = _Leave(link)

    def gone(self, event: ContainerGone, link: L) -> None:
        """Tell that a container is gone, now or when its scheduler has answered."""
        leave = self._leaves.get(event.container)
        if leave is None or leave.link is not link:
            self._leaves.pop(event.container, None)
            self._tell(link, event)
            return
        leave.gone = event
        self._wait(event.container, leave)

    def _wait(self, container: str, leave: _Leave[L]) -> None:
        loop = asyncio.get_running_loop()
        leave.timer = loop.call_later(ANSWER_S, self._waited, container, leave)

    def _waited(self, container: str, leave: _Leave[L]) -> None:
        if leave.link.up:
            self.answered(container, leave.link)
        else:  # nothing could be told now, and what was on its way still comes
            self._wait(container, leave)

    def answered(self, container: str, link: L) -> None:
        """The scheduler has heard of the leave, and nothing of it comes any more."""
        leave = self._leaves.get(container)
        if leave is None or leave.link is not link:
            return
        del self._leaves[container]
        if leave.timer is not None:
            leave.timer.cancel()
        if leave.gone is not None:
            self._tell(link, leave.gone)

    def forget(self, link: L) -> None:
        """Nobody is behind a link any more."""
        for container in [c for c, leave in self._leaves.items() if leave.link is link]:
            timer = self._leaves.pop(container).timer
            if timer is not None:
                timer.cancel()
