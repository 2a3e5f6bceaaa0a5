"""``acs invoker drain``: asks one start of an invoker, by a key in etcd, to leave in good order.

The key ``drain/{instance}`` hangs on the invoker's own lease: it goes with it, and a later start
of the same name is not drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..etcd import Etcd, Watched, get, put, was_created_at
from ..membership import read_member


class DrainError(Exception):
    """It cannot be drained; the text says why."""


class DrainTooLong(DrainError):
    """It was asked, and has not left yet."""


class DrainWatch:
    """Calls ``leave`` once this instance is asked to."""

    def __init__(self, etcd: Etcd, cluster: str, instance: str, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._watched = Watched(etcd, _key(cluster, instance), self._changed)

    async def start(self) -> None:
        """Begin to look.  Raises: EtcdError."""
        await self._watched.start()

    async def close(self) -> None:
        """Look no more."""
        await self._watched.close()

    def _changed(self, rest: str, value: bytes | None) -> None:
        # Else it is another one, whose name begins with this one's.
        if not rest and value is not None:
            self._leave()


async def drain(etcd: Etcd, cluster: str, name: str, within_s: float) -> str:
    """Ask the invoker of this name to leave, wait until it has, and return its instance.

    Raises: DrainError, EtcdError.
    """
    member = f"{cluster}/member/invoker/{name}"
    left = asyncio.Event()

    def changed(rest: str, value: bytes | None) -> None:
        if not rest and value is None:
            left.set()

    watched = Watched(etcd, member, changed)
    await watched.start()
    try:
        instance = await _ask(etcd, cluster, member)
        async with asyncio.timeout(within_s):
            await left.wait()
    except TimeoutError:
        raise DrainTooLong(
            f"invoker {name} has not left within {within_s:g} s; it will, when what runs has ended"
        ) from None
    finally:
        await watched.close()
    return instance


async def _ask(etcd: Etcd, cluster: str, member: str) -> str:
    answer = await etcd.transaction((), (get(member),))
    found = answer.responses[0].response_range.kvs
    if not found:
        raise DrainError(f"there is no member {member.removeprefix(f'{cluster}/member/')}")
    known = read_member(
        member, found[0].value, lambda each: f"{cluster}/member/{each.role}/{each.name}"
    )
    if known is None:
        raise DrainError(f"the key {member} in etcd is no member's")
    asked = put(_key(cluster, known.instance), b"", found[0].lease)
    same = was_created_at(member, found[0].create_revision)
    answer = await etcd.transaction((same,), (asked,))
    if not answer.succeeded:
        raise DrainError(f"invoker {known.name} ({known.instance}) has left meanwhile")
    return known.instance


def _key(cluster: str, instance: str) -> str:
    return f"{cluster}/drain/{instance}"
