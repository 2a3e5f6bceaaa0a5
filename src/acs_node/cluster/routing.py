"""A controller's way to the schedulers: which one leads a queue, and what becomes of activations
whose scheduler is gone.

An activation is sent again only when it is known that it was not started: it was never written to
its scheduler, or that one's instance is fenced at every invoker, so that nothing of it arrives
there any more, and none of them was given the activation.  A result that was sent before the
answer to a fence has arrived before it, links keep the order; so what is unknown to all invokers
then has neither run nor will.  What an invoker that is gone as well might have been given ends as
*unknown*.

An invoker that goes may have told its scheduler that a run has ended, and not us.  So a while
later schedulers are asked what they do not hold any more, and of what does not end then either the
other invokers: what none of them has is *unknown*.

What is to end as *unknown* waits a moment for its result: where this node is behind, that may have
come and not been read yet (``PeerLink.cut``).

No I/O of its own; links and the controller are handed in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from acs_core import spreading
from acs_core.effects import Cause, Reject, Throttle

from ..links import (
    Cancel,
    Close,
    Drained,
    Fence,
    Fenced,
    Inquiry,
    Misdirected,
    NotHeld,
    QueueClosed,
    Result,
    Submit,
)
from ..peer_link import LinkFull, PeerLink

log = logging.getLogger(__name__)

PARKED_MAX: Final = 50_000
"""Activations that wait for a scheduler; as many as a full controller may have."""

FENCE_PART: Final = 10_000
"""Activations in one fence, or one inquiry."""

GONE_MAX: Final = 100
"""Schedulers that are remembered as gone, for those who have not noticed yet."""

DOUBT_US: Final = 1_000_000
"""How long what is to end as *unknown* waits for its result; no shorter than a link that is cut
is read on."""

_NEVER: Final = 2**62

CUT_OFF: Final = (
    "It is cut off from etcd and from schedulers; another server, or this one later, takes requests"
)
"""Why a controller refuses work."""

RETRY_US: Final = 1_000_000
"""What a caller is told when there is no room on the way."""


@dataclass(slots=True)
class _Sent:
    """An activation that has not ended; ``at`` is where: a scheduler's or an invoker's instance,
    empty while it waits here."""

    submit: Submit
    at: str
    tries: int = 0


@dataclass(slots=True)
class _Fencing:
    """A node that is gone, whose activations are being asked for."""

    ids: list[str]
    awaited: dict[str, int]  # invoker -> answers to come
    known: dict[str, str] = field(default_factory=dict)  # activation -> invoker
    lost_invoker: bool = False


class Routing:
    """What one controller has at schedulers.  ``receive`` is the controller's.

    ``now_us`` tells the time; ``recent_us`` is how long after an invoker has gone a scheduler that
    goes as well may have taken the news with it: the time of two leases.  ``is_member`` tells
    whether this node's lease certainly holds.  ``look`` is to be called now and then.
    """

    def __init__(
        self,
        receive: Callable[[object], None],
        now_us: Callable[[], int],
        recent_us: int,
        is_member: Callable[[], bool] = lambda: True,
    ) -> None:
        self._receive = receive
        self._now_us = now_us
        self._recent_us = recent_us
        self._is_member = is_member
        self._schedulers: dict[str, PeerLink] = {}
        self._invokers: dict[str, PeerLink] = {}
        self._leaders: dict[str, str] = {}
        self._loads: dict[str, float] = {}
        self._gone: deque[str] = deque(maxlen=GONE_MAX)  # schedulers
        self._sent: dict[str, _Sent] = {}
        self._parked: dict[str, None] = {}
        self._throttled: dict[str, str] = {}  # queue -> scheduler
        self._fencing: dict[str, _Fencing] = {}
        self._drained: set[str] = set()  # invokers that leave with nothing in their hands
        self._invoker_went_us = -(2**62)
        self._inquire_us = _NEVER
        self._gone_invoker = ""
        # What its scheduler does not hold any more: that one, and until when an end is waited for.
        self._not_held: dict[str, tuple[str, int]] = {}
        # What ends as unknown unless its result comes by then; oldest first.
        self._doubted: dict[str, tuple[Reject, int]] = {}
        self._leaders_changed = False

    # --- the controller's link ----------------------------------------------------------------

    def send(self, message: object) -> None:
        """Hand over what the controller says to a scheduler (``Link``)."""
        if isinstance(message, Submit):
            sent = _Sent(message, "")
            self._sent[message.activation.activation_id] = sent
            self._forward(message.activation.activation_id, sent)
        elif isinstance(message, Cancel):
            known = self._sent.get(message.activation_id)
            if known is not None and known.at in self._schedulers:
                self._schedulers[known.at].send(message)
        elif isinstance(message, Close):
            link = self._schedulers.get(self._leaders.get(message.queue, ""))
            if link is not None:
                link.send(message)
        else:
            raise TypeError(f"{type(message).__name__} is no message for a scheduler")

    def _forward(self, activation_id: str, sent: _Sent) -> None:
        queue = sent.submit.spec.queue
        leader = self._leaders.get(queue, "")
        if not leader and self._schedulers:
            up = [each for each, link in self._schedulers.items() if link.up]
            loads = {each: self._loads.get(each, 0.0) for each in up or self._schedulers}
            leader = spreading.choose(queue, loads)
        link = self._schedulers.get(leader)
        if (link is None or not link.up) and not self._is_member():
            # The others have most likely cut it, and would never get this.
            self._refuse(activation_id, Cause.QUEUE_FULL, CUT_OFF)
            return
        if link is None:  # nobody is there, or the leader is gone and its lease has not ended yet
            self._park(activation_id, sent)
            return
        try:
            link.send(sent.submit)
            sent.at = leader
        except LinkFull as error:
            self._refuse(activation_id, Cause.QUEUE_FULL, str(error))

    def _park(self, activation_id: str, sent: _Sent) -> None:
        if len(self._parked) >= PARKED_MAX:
            reason = f"{len(self._parked)} activations wait for a scheduler (allowed: {PARKED_MAX})"
            self._refuse(activation_id, Cause.QUEUE_FULL, reason)
            return
        sent.at = ""
        self._parked[activation_id] = None

    def _unpark(self) -> None:
        parked, self._parked = self._parked, {}
        for activation_id in parked:
            sent = self._sent.get(activation_id)
            if sent is not None:
                self._forward(activation_id, sent)

    def _refuse(self, activation_id: str, cause: Cause, reason: str) -> None:
        sent = self._sent.pop(activation_id)
        self._reject(Reject(sent.submit.activation, cause, reason, RETRY_US))

    def _reject(self, message: Reject) -> None:
        if message.cause == Cause.UNKNOWN:
            due_us = self._now_us() + DOUBT_US
            self._doubted.setdefault(message.activation.activation_id, (message, due_us))
        else:
            self._receive(message)

    # --- what comes ----------------------------------------------------------------------------

    def take(self, instance: str, message: object) -> None:
        """Take a message of the scheduler or invoker of that instance."""
        if isinstance(message, Result):
            self._sent.pop(message.activation_id, None)
            self._doubted.pop(message.activation_id, None)
            self._receive(message)
        elif isinstance(message, Reject):
            self._sent.pop(message.activation.activation_id, None)
            self._reject(message)
        elif isinstance(message, Misdirected):
            self._misdirected(message)
        elif isinstance(message, Fenced):
            self._on_fenced(instance, message)
        elif isinstance(message, Drained):
            self._drained.add(instance)
        elif isinstance(message, NotHeld):
            # From another invoker the result may come later than this.
            due_us = self._now_us() + self._recent_us // 2
            for id_ in message.activation_ids:
                self._not_held.setdefault(id_, (instance, due_us))
        else:
            if isinstance(message, Throttle):
                if message.on:
                    self._throttled[message.queue] = instance
                else:
                    self._throttled.pop(message.queue, None)
            elif isinstance(message, QueueClosed):
                self._throttled.pop(message.queue, None)
            self._receive(message)

    def _misdirected(self, message: Misdirected) -> None:
        sent = self._sent.get(message.activation_id)
        if sent is None:
            return
        if message.leader in self._schedulers:
            self._leaders[message.queue] = message.leader
            self._forward(message.activation_id, sent)
        elif message.leader in self._gone:
            # Who sent this has not noticed yet.
            self._forward(message.activation_id, sent)
        else:
            # It leads, and we have not met, or it is gone and etcd has not noticed.
            self._leaders[message.queue] = message.leader
            self._park(message.activation_id, sent)

    def is_loaded(self, instance: str, load: float | None) -> None:
        """Learn how much a scheduler has to do, see ``spreading``; None: it is gone."""
        if load is None:
            self._loads.pop(instance, None)
        else:
            self._loads[instance] = load

    def leads(self, queue: str, instance: str | None) -> None:
        """Learn who leads a queue; None: nobody."""
        if instance is None:
            self._leaders.pop(queue, None)
        else:
            self._leaders[queue] = instance
            self._leaders_changed = True
        if self._parked:
            self._unpark()

    # --- who is there --------------------------------------------------------------------------

    def scheduler_linked(self, link: PeerLink) -> None:
        """A scheduler takes work from now on."""
        self._schedulers[link.peer.instance] = link
        self._unpark()

    def invoker_linked(self, link: PeerLink) -> None:
        """An invoker is known from now on."""
        self._invokers[link.peer.instance] = link

    def scheduler_gone(self, instance: str) -> None:
        """A scheduler's lease has ended: learn what it had written to the invokers."""
        link = self._schedulers.pop(instance, None)
        self._gone.append(instance)
        for queue in [q for q, leader in self._leaders.items() if leader == instance]:
            del self._leaders[queue]
        for queue in [q for q, where in self._throttled.items() if where == instance]:
            del self._throttled[queue]
            self._receive(Throttle(queue, False, "its scheduler is gone"))
        again = [] if link is None else self._unwritten(link)
        ids = [id_ for id_, sent in self._sent.items() if sent.at == instance]
        log.warning(
            "scheduler %s is gone; %d activations were there, %d on the way",
            instance,
            len(ids),
            len(again),
        )
        lost_invoker = self._now_us() - self._invoker_went_us < self._recent_us
        self._fence(instance, ids, lost_invoker)
        for id_ in again:
            self._forward(id_, self._sent[id_])

    def _fence(self, instance: str, ids: list[str], lost_invoker: bool) -> None:
        """Have every invoker take nothing more of an instance, and say which of these it has."""
        parts = [tuple(ids[at : at + FENCE_PART]) for at in range(0, len(ids), FENCE_PART)] or [()]
        fencing = _Fencing(ids, dict.fromkeys(self._invokers, len(parts)), {}, lost_invoker)
        self._fencing[instance] = fencing
        for invoker, link in self._invokers.items():
            for part in parts:
                try:
                    link.send(Fence(instance, part))
                except LinkFull:
                    # It does not answer either: as one that is gone.
                    fencing.awaited.pop(invoker, None)
                    fencing.lost_invoker = True
                    break
        self._look(instance, fencing)

    def _unwritten(self, link: PeerLink) -> list[str]:
        """Take back what the scheduler never got, most of what came while it was dead already."""
        ids = []
        for message in link.unwritten():
            if isinstance(message, Submit):
                sent = self._sent.get(message.activation.activation_id)
                if sent is not None and sent.at == link.peer.instance:
                    sent.at = ""
                    ids.append(message.activation.activation_id)
        return ids

    def invoker_gone(self, instance: str) -> None:
        """An invoker's lease has ended: what it is known to have had ends as *unknown*."""
        self._invokers.pop(instance, None)
        drained = instance in self._drained
        self._drained.discard(instance)
        if not drained:
            self._invoker_went_us = self._now_us()
            self._gone_invoker = instance
            # Not at once: schedulers that have not noticed may still be told.
            self._inquire_us = self._invoker_went_us + self._recent_us // 2
        for id_ in [id_ for id_, sent in self._sent.items() if sent.at == instance]:
            self._refuse(id_, Cause.UNKNOWN, _GONE)
        for scheduler, fencing in list(self._fencing.items()):
            if fencing.awaited.pop(instance, None) is not None:
                fencing.lost_invoker = fencing.lost_invoker or not drained
                self._look(scheduler, fencing)

    def _on_fenced(self, invoker: str, message: Fenced) -> None:
        fencing = self._fencing.get(message.scheduler)
        if fencing is None or invoker not in fencing.awaited:
            return
        fencing.known.update(dict.fromkeys(message.known, invoker))
        fencing.awaited[invoker] -= 1
        if not fencing.awaited[invoker]:
            del fencing.awaited[invoker]
            self._look(message.scheduler, fencing)

    def _look(self, scheduler: str, fencing: _Fencing) -> None:
        """Send again what nobody was given, once every invoker has answered or is gone."""
        if fencing.awaited:
            return
        del self._fencing[scheduler]
        again = unknown = 0
        for id_ in fencing.ids:
            sent = self._sent.get(id_)
            if sent is None:
                continue  # it has ended meanwhile
            invoker = fencing.known.get(id_, "")
            if invoker in self._invokers:
                sent.at = invoker  # its result comes from there
            elif invoker or fencing.lost_invoker:
                unknown += 1
                self._refuse(id_, Cause.UNKNOWN, _GONE)
            else:
                again += 1
                self._forward(id_, sent)
        log.warning("of %s, which is gone: %d sent again, %d unknown", scheduler, again, unknown)

    def is_cut_off(self) -> bool:
        """Tell whether work that is accepted now would get nowhere."""
        return not self._is_member() and not any(link.up for link in self._schedulers.values())

    @property
    def schedulers(self) -> dict[str, PeerLink]:
        """The links to the schedulers, by instance."""
        return self._schedulers

    def _take_back(self) -> None:
        """Send to the leaders of now what a scheduler that is not reached never got."""
        self._leaders_changed = False
        for link in [link for link in self._schedulers.values() if not link.up]:
            for message in link.take_unwritten():
                if isinstance(message, Submit):
                    id_ = message.activation.activation_id
                    sent = self._sent.get(id_)
                    if sent is not None and sent.at == link.peer.instance:
                        self._forward(id_, sent)
                else:
                    link.send(message)

    def look(self) -> None:
        """Ask what is due to be asked, of schedulers and then of invokers, and end what nobody
        answered."""
        if self._leaders_changed:
            self._take_back()
        now_us = self._now_us()
        for id_, (rejection, due_us) in list(self._doubted.items()):
            if now_us < due_us:
                break
            del self._doubted[id_]
            self._receive(rejection)
        if now_us >= self._inquire_us:
            self._inquire_us = _NEVER
            for instance, link in self._schedulers.items():
                self._inquire(instance, link)
        due = []
        for id_, (instance, due_us) in list(self._not_held.items()):
            sent = self._sent.get(id_)
            if sent is None or sent.at != instance:
                del self._not_held[id_]  # it has ended, or is elsewhere
            elif now_us >= due_us and self._gone_invoker not in self._fencing:
                del self._not_held[id_]
                due.append(id_)
        if due:
            # It may run where its scheduler left it when it gave up the queue.
            self._fence(self._gone_invoker, due, True)

    def _inquire(self, instance: str, link: PeerLink) -> None:
        ids = [id_ for id_, sent in self._sent.items() if sent.at == instance]
        try:
            for at in range(0, len(ids), FENCE_PART):
                link.send(Inquiry(tuple(ids[at : at + FENCE_PART])))
        except LinkFull as error:
            # What it would have told ends by its deadline.
            log.warning("what ended on the invoker that is gone is not asked: %s", error)

    def counts(self) -> dict[str, int]:
        """Return what is under way."""
        return {
            "sent": len(self._sent),
            "parked": len(self._parked),
            "doubted": len(self._doubted),
            "fencing": len(self._fencing),
            "queues": len(self._leaders),
        }


_GONE: Final = (
    "It is not known whether the action ran or how it ended: the invoker that may have had it is"
    " gone."
)
