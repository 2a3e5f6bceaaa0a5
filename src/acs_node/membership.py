"""Who is in the cluster: one key in etcd for each node, which hangs on the node's lease.

A node that ends takes its key with it, by itself or with its lease.  One that is started anew
under the same name is another member: it has another *instance*, and it joins only when the key
of the earlier one is gone, so that nothing of that one is taken for its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from .etcd import Etcd, EtcdError, Lease, Watched, backoff, is_absent, put, was_created_at

log = logging.getLogger(__name__)

ROLES = ("controller", "scheduler", "invoker")


@dataclass(frozen=True, slots=True)
class Member:
    """A node; ``address`` is where other nodes dial in, ``memory_mb`` an invoker's memory.

    ``frames_address`` is where they dial in without gRPC; empty: nowhere.
    ``number`` tells controllers apart in activation ids; 0 for other roles.  ``status`` is an
    invoker's health: ``up``, ``unhealthy`` or ``unresponsive``.
    """

    role: str
    name: str
    instance: str
    address: str
    memory_mb: int = 0
    number: int = 0
    status: str = "up"
    frames_address: str = ""


@dataclass(frozen=True, slots=True)
class _Own:
    """This node's own key, as it was put."""

    member: Member
    key: str
    created: int
    lease: int


class Membership:
    """The members, as this node knows them.

    ``joined`` and ``gone`` are called for every other node, ``gone`` once for each ``joined``; and
    for one that had announced itself and ended before it joined.
    """

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        instance: str,
        joined: Callable[[Member], None],
        gone: Callable[[Member], None],
    ) -> None:
        self._etcd = etcd
        self._prefix = f"{cluster}/member/"
        self._instance = instance
        self._joined = joined
        self._gone = gone
        self._members: dict[str, Member] = {}
        self._watched = Watched(etcd, self._prefix, self._changed)
        self._announcements = f"{cluster}/announced/"
        # Of those that are on their way to become members, by instance.
        self._announced: dict[str, Member] = {}
        self._own: _Own | None = None
        self._status = ""
        self._telling: asyncio.Task[None] | None = None
        self._coming = Watched(etcd, self._announcements, self._announcement)

    async def start(self) -> None:
        """Learn who is there, and follow.  Raises: EtcdError."""
        await self._coming.start()
        await self._watched.start()

    async def announce(self, member: Member, lease: Lease) -> None:
        """Say that this node will be a member, so that others take its links.

        Raises: EtcdError.
        """
        value = _value(member)
        await self._etcd.put(f"{self._announcements}{member.instance}", value, lease.id)

    def is_known(self, role: str, name: str, instance: str) -> bool:
        """Tell whether such a node is a member or has announced itself."""
        known = self._announced.get(instance)
        if known is None:
            known = self._members.get(f"{role}/{name}")
        return known is not None and (known.role, known.name, known.instance) == (
            role,
            name,
            instance,
        )

    async def join(self, member: Member, lease: Lease) -> None:
        """Become a member; wait while an earlier start of this name is one.  Raises: EtcdError."""
        key = f"{self._prefix}{member.role}/{member.name}"
        value = _value(member)
        tries = 0
        while True:
            answer = await self._etcd.transaction((is_absent(key),), (put(key, value, lease.id),))
            if answer.succeeded:
                self._own = _Own(member, key, answer.header.revision, lease.id)
                return
            if tries == 0:
                log.warning(
                    "%s %s is a member already; waiting for its lease to end",
                    member.role,
                    member.name,
                )
            await backoff(tries)
            tries += 1

    def tell_status(self, status: str) -> None:
        """Have the others know how this node is from now on; as soon as etcd takes it."""
        self._status = status
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._tell_status())

    async def _tell_status(self) -> None:
        tries = 0
        while self._own is not None and self._own.member.status != self._status:
            own = self._own
            member = replace(own.member, status=self._status)
            # Not after its lease: then somebody else of this name may be there.
            same = was_created_at(own.key, own.created)
            try:
                await self._etcd.transaction((same,), (put(own.key, _value(member), own.lease),))
            except EtcdError as error:
                if tries == 0:
                    log.warning("that this node is %s is not known yet: %s", self._status, error)
                await backoff(tries)
                tries += 1
            else:
                self._own = replace(own, member=member)

    def members(self, role: str) -> list[Member]:
        """Return the members of a role, without this node."""
        return [member for member in self._members.values() if member.role == role]

    async def close(self) -> None:
        """Follow no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._watched.close()
        await self._coming.close()

    def _changed(self, name: str, value: bytes | None) -> None:
        if value is None:
            member = self._members.pop(name, None)
            if member is not None:
                log.info("%s %s (%s) is gone", member.role, member.name, member.instance)
                self._announced.pop(member.instance, None)
                self._gone(member)
            return
        member = read_member(name, value, lambda member: f"{member.role}/{member.name}")
        if member is None or member.instance == self._instance:
            return
        known = self._members.get(name)
        self._members[name] = member
        if known is None:
            log.info("%s %s (%s) is here", member.role, member.name, member.instance)
            self._joined(member)
        else:  # another instance would have come after the end of this one
            log.info("%s %s is %s", member.role, member.name, member.status)

    def _announcement(self, instance: str, value: bytes | None) -> None:
        if value is not None:
            member = read_member(instance, value, lambda member: member.instance)
            if member is not None and instance != self._instance:
                self._announced[instance] = member
            return
        # It may have ended before it was a member, and have links all the same.
        member = self._announced.pop(instance, None)
        if member is not None and not self._is_member(member):
            self._gone(member)

    def _is_member(self, announced: Member) -> bool:
        member = self._members.get(f"{announced.role}/{announced.name}")
        return member is not None and member.instance == announced.instance


def _value(member: Member) -> bytes:
    return json.dumps(asdict(member)).encode()


def read_member(name: str, value: bytes, key: Callable[[Member], str]) -> Member | None:
    """Return the member of a key; None, and a line in the log, for what is none."""
    try:
        fields = json.loads(value)
        # What a later version adds is none of ours.
        known = {key: fields[key] for key in Member.__slots__ if key in fields}
        member = Member(**known)
        if member.role not in ROLES or name != key(member):
            raise ValueError(f"it says that it is {member.role}/{member.name} {member.instance}")
        return member
    except (ValueError, TypeError, AttributeError) as error:
        log.error("the member %s is none: %s", name, error)
        return None
