"""How nodes talk: one interface, and what they say beside the core's events and effects.

``LocalLink`` joins nodes of one process without copying anything.  A link between processes
carries the same messages and has the same order: what one side sends arrives in that order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from acs_core.events import Activation, QueueSpec

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Submit:
    """Controller to scheduler: run this activation on a queue of this shape."""

    spec: QueueSpec
    activation: Activation


@dataclass(slots=True)
class Cancel:
    """Controller to scheduler: nobody wants the activation any more."""

    activation_id: str


@dataclass(slots=True)
class Close:
    """Controller to scheduler: the action changed or went; drain its old queue."""

    queue: str
    why: str


@dataclass(slots=True)
class Result:
    """Invoker to controller: how an activation ended.  Sent before the container pulls again.

    ``response`` is the JSON of the result, as the action wrote it where it could be used as it
    is.  ``start_ms`` is wall-clock time, ``wait_us`` from arrival to start, ``init_us`` 0 on a
    warm container; ``duration_us`` includes it.  ``logs_follow`` announces ``Logs``.
    """

    activation_id: str
    outcome: int
    response: bytes
    start_ms: int
    wait_us: int
    init_us: int
    duration_us: int
    timed_out: bool
    logs_follow: bool


@dataclass(slots=True)
class Logs:
    """Invoker to controller: what activations printed, in the form of the record.

    Of all that ended since the last tick, by id: a message for each would cost as much as its
    result did.
    """

    entries: list[tuple[str, list[str]]]


@dataclass(slots=True)
class QueueClosed:
    """Scheduler to controller: nothing is left of the queue; the next work opens it anew."""

    queue: str


# --- between processes alone -------------------------------------------------------------------


@dataclass(slots=True)
class Misdirected:
    """Scheduler to controller: ``leader`` leads the queue, not this one; nothing was done."""

    activation_id: str
    queue: str
    leader: str


@dataclass(slots=True)
class ActionWanted:
    """Invoker to controller: what is the action of this queue?  ``ActionFound`` answers."""

    queue: str


@dataclass(slots=True)
class ActionFound:
    """Controller to invoker: the action as JSON with its code, or why there is none."""

    queue: str
    document: bytes
    revision: int
    error: str


@dataclass(slots=True)
class Inquiry:
    """Controller to scheduler: an invoker is gone.  Which of these do you not hold any more?

    ``NotHeld`` answers.
    """

    activation_ids: tuple[str, ...]


@dataclass(slots=True)
class NotHeld:
    """Scheduler to controller: these have neither to wait nor to run, as far as it knows."""

    activation_ids: tuple[str, ...]


@dataclass(slots=True)
class Fence:
    """Controller to invoker: take nothing more from the scheduler of this instance.

    It is gone, or cut off; what it wrote may still be on its way.  ``Fenced`` answers for the
    activations.  With the instance of an invoker that is gone, it asks for them alone.
    """

    scheduler: str
    activation_ids: tuple[str, ...]


@dataclass(slots=True)
class Fenced:
    """Invoker to controller: it is done, and of those activations it was given ``known``."""

    scheduler: str
    known: tuple[str, ...]


@dataclass(slots=True)
class Drained:
    """Invoker to controller: all that was given to it has ended, and nothing more will start."""


class Link(Protocol):
    """One direction between two nodes."""

    def send(self, message: object) -> None:
        """Hand over a message; it arrives after everything that was sent before it."""
        ...


class LocalLink:
    """A link within the process: the receiver runs in ``send``, one message at a time.

    A message sent while another one is being received waits until that is done, so a node is
    never entered twice and the order of its effects holds.
    """

    send: Callable[[object], None]
    """Hand over a message; see ``Link``.  Cost: O(1) beside the receiver's own work."""

    def __init__(self, receive: Callable[[object], None], inbox: Inbox) -> None:
        # Not a method: four messages an activation would pay for a call that only passes on.
        self.send = partial(inbox.put, receive)


class Inbox:
    """What is on its way on the local links of one process, in the order of sending."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[object], None], object]] = deque()
        self._delivering = False

    def put(self, receive: Callable[[object], None], message: object) -> None:
        """Deliver the message, now or after those before it.

        A receiver that raises loses that one message: the exception is no business of the
        sender, who would drop what else it is about, and what waits must not wait for ever.
        """
        self._waiting.append((receive, message))
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting:
                receive, message = self._waiting.popleft()
                try:
                    receive(message)
                except Exception:
                    log.exception("a %s was not received", type(message).__name__)
        finally:
            self._delivering = False
