"""The store of namespaces and actions: credentials in memory, actions in a bounded cache.

Used from one event loop; only the database itself is used in other threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import uuid as uuids
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.exc import IntegrityError

from .action_schema import RuntimeKind, RuntimeKinds, SystemLimits, create_action, update_action
from .database import Database, meta
from .database import entities as entities_table
from .database import namespaces as namespaces_table
from .entity_types import (
    Action,
    ActionLimits,
    Exec,
    Identity,
    NamespaceLimits,
    Parameter,
    annotation,
)
from .errors import (
    already_exists,
    concurrent_modification,
    not_found,
    not_found_named,
    wrong_collection,
)
from .names import check_namespace, split_path
from .run_keys import SECRET_BYTES, RunKeys

__all__ = [
    "Action",
    "ActionLimits",
    "EntityStore",
    "Exec",
    "Identity",
    "NamespaceLimits",
    "Parameter",
    "RuntimeKind",
    "RuntimeKinds",
    "SystemLimits",
    "annotation",
]

T = TypeVar("T")
Listener = Callable[[Action, Action | None], None]

CACHED_ACTIONS_MAX: Final = 10_000
"""Actions kept in memory: the ones in use on a large node, at about 3 KB each without code."""

CACHED_CODE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Code kept in memory; at least five actions of the largest size."""

_ACTIONS = "actions"
_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_KEY_CHARACTERS = 64
_NO_HASH = bytes(32)


class EntityStore:
    """Namespaces with their credentials, and actions; call ``open`` first.

    ``listeners`` are called in the event loop, in the order of the commits, with the action
    before an update or a deletion, and the one after it or None.  Creations are not told.
    They must not raise.
    """

    def __init__(
        self,
        database: Database,
        *,
        kinds: RuntimeKinds,
        limits: SystemLimits,
        clock_ms: Callable[[], int],
    ) -> None:
        self.kinds = kinds
        self.limits = limits
        self.listeners: list[Listener] = []
        self._database = database
        self._clock_ms = clock_ms
        # Functions do not outlive the process whose keys they hold.
        self.run_keys = RunKeys(secrets.token_bytes(SECRET_BYTES))
        self._identities: dict[str, tuple[bytes, Identity]] = {}  # by uuid, with the key's hash
        self._namespaces: dict[str, Identity] = {}
        self._cache: OrderedDict[tuple[str, str], Action] = OrderedDict()
        self._cached_code_bytes = 0
        self._changes = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Read the namespaces and their credentials."""
        rows = await self._database.read(
            lambda connection: connection.execute(select(namespaces_table)).all()
        )
        for row in rows:
            limits = NamespaceLimits.from_document(orjson.loads(row.limits))
            self._remember(Identity(row.name, row.subject, row.uuid, limits), row.key_hash)

    # Namespaces.

    def authenticate(self, uuid: str, key: str) -> Identity | None:
        """Return whose credential this is, or None.  About 1 µs; no I/O.

        The time taken does not depend on how much of the key is right.
        """
        expected, identity = self._identities.get(uuid, (_NO_HASH, None))
        if hmac.compare_digest(_hash(key), expected):
            return identity
        activation_id = self.run_keys.activation_of(uuid, key, self._clock_ms())
        if identity is None or activation_id is None:
            return None
        return replace(identity, caller=activation_id)

    def is_current(self, identity: Identity) -> bool:
        """Tell whether an identity that was authenticated before still stands as it was."""
        known = self._identities.get(identity.uuid)
        if known is None:
            return False
        return known[1] is identity or known[1] == replace(identity, caller="")

    async def create_namespace(
        self, name: str, *, limits: NamespaceLimits | None = None
    ) -> tuple[str, str]:
        """Create a namespace; return its uuid and its key, of which only a hash is kept.

        Raises: ApiError 400 for an illegal name, 409 when it exists, and nothing changed.
        """
        check_namespace(name)
        limits = limits or NamespaceLimits()
        identity = Identity(name, name, str(uuids.uuid4()), limits)
        key = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_CHARACTERS))
        key_hash = _hash(key)
        row = {
            "name": name,
            "subject": identity.subject,
            "uuid": identity.uuid,
            "key_hash": key_hash,
            "limits": orjson.dumps(limits.document()),
        }

        async def create() -> None:
            try:
                await self._database.write(lambda c: c.execute(namespaces_table.insert(), row))
            except IntegrityError:
                raise already_exists() from None
            self._remember(identity, key_hash)

        await self._to_the_end(create())
        return identity.uuid, key

    async def namespace(self, name: str) -> Identity | None:
        """Return the owner of namespace ``name``, or None when there is no such namespace."""
        return self._namespaces.get(name)

    def _remember(self, identity: Identity, key_hash: bytes) -> None:
        self._identities[identity.uuid] = (key_hash, identity)
        self._namespaces[identity.namespace] = identity

    # Actions: look-up.

    def cached_action(self, namespace: str, path: str) -> Action | None:
        """Return the action if it is in memory.  None says nothing about whether it exists."""
        key = (namespace, path)
        action = self._cache.get(key)
        if action is not None:
            self._cache.move_to_end(key)
        return action

    async def action(self, namespace: str, path: str) -> Action:
        """Return the action ``path`` ("hello" or "package/hello") of ``namespace``.

        Raises: ApiError 404; 409 when the name belongs to something that is no action.
        """
        action = self.cached_action(namespace, path)
        if action is None:
            action = await self._load(namespace, path)
            if action is None:
                raise not_found()
        return action

    async def _load(self, namespace: str, path: str) -> Action | None:
        changes = self._changes
        statement = select(entities_table).where(*_at(namespace, path))
        row = await self._database.read(lambda c: c.execute(statement).one_or_none())
        if row is None:
            return None
        if row.collection != _ACTIONS:
            raise wrong_collection()
        action = _from_row(row, row.code)
        # A change that was committed meanwhile may be newer than what was read.
        if changes == self._changes:
            self._cache_put(action)
        return action

    async def list_actions(self, namespace: str, skip: int, limit: int) -> list[Action]:
        """Return the actions of a namespace without their code, last updated first."""
        columns = [column for column in entities_table.c if column.name != "code"]
        statement = (
            select(*columns)
            .where(*_actions_of(namespace))
            .order_by(entities_table.c.updated.desc(), entities_table.c.revision.desc())
            .offset(skip)
            .limit(limit)
        )
        return await self._database.read(
            lambda c: [_from_row(row, None) for row in c.execute(statement)]
        )

    async def count_actions(self, namespace: str, skip: int = 0) -> int:
        """Return how many actions there are after the first ``skip``."""
        statement = select(func.count()).select_from(entities_table).where(*_actions_of(namespace))
        total = await self._database.read(lambda c: c.scalar(statement))
        return max(0, (total or 0) - skip)

    # Actions: change.

    async def put_action(
        self, namespace: str, path: str, body: dict[str, Any], overwrite: bool
    ) -> Action:
        """Create or update an action as the PUT body says; return it as stored.

        Raises: ApiError 400, 403, 404 (no such package), 409 (exists and not ``overwrite``;
        changed by someone else meanwhile) or 413, and nothing changed.
        """
        return await self._to_the_end(self._put(namespace, path, body, overwrite))

    async def _put(
        self, namespace: str, path: str, body: dict[str, Any], overwrite: bool
    ) -> Action:
        package, name = split_path(path)
        # From the database: the basis of a change must not be what another node changed since.
        old = await self._load(namespace, path)
        if old is not None and not overwrite:
            raise already_exists()
        if old is None and package is not None:
            raise not_found_named(f"{namespace}/{package}")
        owner = self._namespaces.get(namespace)
        # Validated before a revision is drawn and outside of the transaction, which is short.
        rules: dict[str, Any] = {
            "revision": 0,
            "now_ms": self._clock_ms(),
            "kinds": self.kinds,
            "limits": self.limits,
            "owner": owner.limits if owner else NamespaceLimits(),
        }
        if old is None:
            draft = create_action(namespace, package, name, body, **rules)
        else:
            draft = update_action(old, body, **rules)

        def store(connection: Connection) -> int:
            revision = _next_revision(connection)
            row = _to_row(draft, revision)
            if old is None:
                connection.execute(entities_table.insert(), row)
                return revision
            unchanged = entities_table.c.revision == old.revision
            statement = entities_table.update().where(*_at(namespace, path), unchanged)
            if connection.execute(statement.values(**row)).rowcount != 1:
                raise concurrent_modification()
            return revision

        try:
            revision = await self._database.write(store)
        except IntegrityError:  # created by someone else since the look-up
            raise (concurrent_modification() if overwrite else already_exists()) from None
        action = replace(draft, revision=revision)
        self._changes += 1
        self._cache_put(action)
        if old is not None:
            self._tell(old, action)
        return action

    async def delete_action(self, namespace: str, path: str) -> Action:
        """Delete an action and return it as it was.

        Raises: ApiError 404; 409 when it was changed meanwhile, and nothing changed.
        """
        return await self._to_the_end(self._delete(namespace, path))

    async def _delete(self, namespace: str, path: str) -> Action:
        old = await self._load(namespace, path)
        if old is None:
            raise not_found()
        unchanged = entities_table.c.revision == old.revision
        statement = entities_table.delete().where(*_at(namespace, path), unchanged)

        def remove(connection: Connection) -> None:
            if connection.execute(statement).rowcount != 1:
                raise concurrent_modification()

        await self._database.write(remove)
        self._changes += 1
        self._cache_drop((namespace, path))
        self._tell(old, None)
        return old

    def _tell(self, old: Action, new: Action | None) -> None:
        for listener in self.listeners:
            listener(old, new)

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end even if the caller is cancelled in the middle.

        Else a committed change could be missing in the cache, and its listeners not told.
        """
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # The cache: bounded by count and by code, the longest unused goes first.

    def _cache_put(self, action: Action) -> None:
        key = (action.namespace, action.path)
        self._cache_drop(key)
        self._cache[key] = action
        self._cached_code_bytes += _code_bytes(action)
        while (
            len(self._cache) > CACHED_ACTIONS_MAX or self._cached_code_bytes > CACHED_CODE_BYTES_MAX
        ):
            self._cache_drop(next(iter(self._cache)))

    def _cache_drop(self, key: tuple[str, str]) -> None:
        action = self._cache.pop(key, None)
        if action is not None:
            self._cached_code_bytes -= _code_bytes(action)


def _hash(key: str) -> bytes:
    # A key is 64 random characters: it cannot be guessed from a fast hash, unlike a password.
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _code_bytes(action: Action) -> int:
    return len(action.exec.code or "")


def _at(namespace: str, path: str) -> tuple[Any, Any]:
    return entities_table.c.namespace == namespace, entities_table.c.path == path


def _actions_of(namespace: str) -> tuple[Any, Any]:
    return entities_table.c.namespace == namespace, entities_table.c.collection == _ACTIONS


def _next_revision(connection: Connection) -> int:
    """Draw a revision that was never used, not even by an action that is deleted since."""
    where = meta.c.name == "revision"
    connection.execute(meta.update().where(where).values(value=meta.c.value + 1))
    return int(connection.execute(select(meta.c.value).where(where)).scalar_one())


def _to_row(action: Action, revision: int) -> dict[str, Any]:
    return {
        "namespace": action.namespace,
        "path": action.path,
        "collection": _ACTIONS,
        "revision": revision,
        "updated": action.updated,
        "document": orjson.dumps(action.document(code=False)),
        "code": action.exec.code,
    }


def _from_row(row: Row[Any], code: str | None) -> Action:
    return Action.from_document(orjson.loads(row.document), revision=row.revision, code=code)
