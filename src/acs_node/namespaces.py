"""Namespaces with their credentials and limits: in the database, and all of them in memory.

Used from one event loop; only the database itself is used in other threads.  Who changes
namespaces in another process pokes the servers, which then ``refresh``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import uuid as uuids
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from .database import Database
from .database import activations as activations_table
from .database import entities as entities_table
from .database import namespaces as namespaces_table
from .entity_types import Identity, NamespaceLimits
from .errors import already_exists, not_found
from .names import check_namespace
from .run_keys import SECRET_BYTES, RunKeys

__all__ = ["NamespaceStore"]

T = TypeVar("T")

_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_KEY_CHARACTERS = 64
_NO_HASH = bytes(32)

_RECORDS_PER_WRITE: Final = 1_000
"""Records of a deleted namespace that go in one transaction; others write in between."""


class NamespaceStore:
    """Namespaces and who owns them; call ``open`` first.

    ``namespace_listeners`` are called in the event loop with the name of a namespace whose owner
    or limits changed, or that is gone.  They must not raise.
    """

    def __init__(self, database: Database, *, clock_ms: Callable[[], int]) -> None:
        self.namespace_listeners: list[Callable[[str], None]] = []
        # Functions do not outlive the process whose keys they hold.
        self.run_keys = RunKeys(secrets.token_bytes(SECRET_BYTES))
        self._database = database
        self._clock_ms = clock_ms
        self._identities: dict[str, tuple[bytes, Identity]] = {}  # by uuid, with the key's hash
        self._namespaces: dict[str, Identity] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Read the namespaces and their credentials."""
        await self.refresh()

    async def refresh(self) -> None:
        """Take over what other processes changed: keys that were revoked stop now."""
        rows = await self._database.read(
            lambda connection: connection.execute(select(namespaces_table)).all()
        )
        found = {}
        for row in rows:
            limits = NamespaceLimits.from_document(orjson.loads(row.limits))
            found[row.name] = (row.key_hash, Identity(row.name, row.subject, row.uuid, limits))
        for name in [name for name in self._namespaces if name not in found]:
            self._forget(name)
        for key_hash, identity in found.values():
            known = self._identities.get(identity.uuid)
            if known != (key_hash, identity):
                self._forget(identity.namespace)
                self._remember(identity, key_hash)

    def authenticate(self, uuid: str, key: str) -> Identity | None:
        """Return whose credential this is, or None.  About 1 µs; no I/O.

        The time taken does not depend on how much of the key is right.
        """
        expected, identity = self._identities.get(uuid, (_NO_HASH, None))
        if hmac.compare_digest(_hash(key), expected):
            return identity
        callers = self.run_keys.chain_of(uuid, key, self._clock_ms())
        if identity is None or not callers:
            return None
        return replace(identity, callers=callers)

    def is_current(self, identity: Identity) -> bool:
        """Tell whether an identity that was authenticated before still stands as it was.

        With another key or other limits a namespace gets another identity, so the same object
        means the same key.  Keys of runs outlive a change of their namespace's own.
        """
        known = self._identities.get(identity.uuid)
        if known is None:
            return False
        if identity.callers:
            return known[1] == replace(identity, callers=())
        return known[1] is identity

    def namespaces(self) -> list[Identity]:
        """Return the owners of all namespaces, by name."""
        return [self._namespaces[name] for name in sorted(self._namespaces)]

    async def namespace(self, name: str) -> Identity | None:
        """Return the owner of namespace ``name``, or None when there is no such namespace."""
        return self._namespaces.get(name)

    async def create_namespace(
        self, name: str, *, limits: NamespaceLimits | None = None
    ) -> tuple[str, str]:
        """Create a namespace; return its uuid and its key, of which only a hash is kept.

        Raises: ApiError 400 for an illegal name, 409 when it exists, and nothing changed.
        """
        check_namespace(name)
        identity = Identity(name, name, str(uuids.uuid4()), limits or NamespaceLimits())
        key = _fresh_key()
        row = {
            "name": name,
            "subject": identity.subject,
            "uuid": identity.uuid,
            "key_hash": _hash(key),
            "limits": orjson.dumps(identity.limits.document()),
        }

        async def create() -> None:
            try:
                await self._database.write(lambda c: c.execute(namespaces_table.insert(), row))
            except IntegrityError:
                raise already_exists() from None
            self._remember(identity, _hash(key))

        await self._to_the_end(create())
        return identity.uuid, key

    async def rotate_key(self, name: str) -> tuple[str, str]:
        """Give a namespace another key; return its uuid and the key.  The old one stops now.

        Raises: ApiError 404, and nothing changed.
        """
        key = _fresh_key()
        _, identity = await self._to_the_end(self._change(name, key_hash=_hash(key)))
        return identity.uuid, key

    async def set_limits(self, name: str, limits: NamespaceLimits) -> None:
        """Give a namespace these limits instead of its old ones.

        Raises: ApiError 404, and nothing changed.
        """
        await self._to_the_end(self._change(name, limits=limits))

    async def _change(
        self, name: str, *, key_hash: bytes | None = None, limits: NamespaceLimits | None = None
    ) -> tuple[bytes, Identity]:
        identity = self._known(name)
        old_hash, _ = self._identities[identity.uuid]
        key_hash = key_hash or old_hash
        identity = replace(identity, limits=limits or identity.limits)
        values = {"key_hash": key_hash, "limits": orjson.dumps(identity.limits.document())}
        statement = namespaces_table.update().where(namespaces_table.c.name == name).values(values)
        await self._database.write(lambda c: c.execute(statement))
        self._forget(name)
        self._remember(identity, key_hash)
        return key_hash, identity

    async def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it; its key stops first.

        Raises: ApiError 404, and nothing changed.
        """
        await self._to_the_end(self._delete_namespace(name))

    async def _delete_namespace(self, name: str) -> None:
        self._known(name)
        row = namespaces_table.delete().where(namespaces_table.c.name == name)
        contents = entities_table.delete().where(entities_table.c.namespace == name)

        def delete(connection: Any) -> None:
            connection.execute(row)
            connection.execute(contents)

        await self._database.write(delete)
        self._forget(name)
        # Else the next one of this name would see them.
        some = (
            select(activations_table.c.activation_id)
            .where(activations_table.c.namespace == name)
            .limit(_RECORDS_PER_WRITE)
        )
        records = activations_table.delete().where(activations_table.c.activation_id.in_(some))
        while await self._database.write(lambda c: c.execute(records).rowcount):
            pass

    def _known(self, name: str) -> Identity:
        identity = self._namespaces.get(name)
        if identity is None:
            raise not_found()
        return identity

    def _remember(self, identity: Identity, key_hash: bytes) -> None:
        self._identities[identity.uuid] = (key_hash, identity)
        self._namespaces[identity.namespace] = identity

    def _forget(self, name: str) -> None:
        identity = self._namespaces.pop(name, None)
        if identity is not None:
            del self._identities[identity.uuid]
            for listener in self.namespace_listeners:
                listener(name)

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end even if the caller is cancelled in the middle.

        Else a committed change could be missing in memory, and its listeners not told.
        """
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


def _fresh_key() -> str:
    return "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_CHARACTERS))


def _hash(key: str) -> bytes:
    # A key is 64 random characters: it cannot be guessed from a fast hash, unlike a password.
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
