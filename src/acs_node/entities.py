"""The store of entities: namespaces, and the actions, packages, triggers and rules in them.

All kinds lie in one table and one bounded cache.  What a change means is decided in the pure
modules of each kind; here it is read, written whole or not at all, and told to listeners.
Used from one event loop; only the database itself is used in other threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.exc import IntegrityError

from .action_schema import RuntimeKind, RuntimeKinds, SystemLimits, create_action, update_action
from .database import Database, DatabaseUnavailable, meta
from .database import entities as entities_table
from .entity_types import (
    Action,
    ActionLimits,
    Entity,
    Exec,
    Identity,
    NamespaceLimits,
    Parameter,
    annotation,
)
from .errors import (
    ApiError,
    already_exists,
    concurrent_modification,
    not_found,
    not_found_named,
    wrong_collection,
)
from .names import split_path
from .namespaces import NamespaceStore
from .packages import Package, create_package, update_package

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

E = TypeVar("E", bound=Entity)
Listener = Callable[[Entity, Entity | None], None]
Guard = Callable[[Connection], None]

CACHED_ENTITIES_MAX: Final = 10_000
"""Entities kept in memory: those in use on a large node, at about 3 KB each without code."""

CACHED_CODE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Code kept in memory; at least five actions of the largest size."""


class EntityStore(NamespaceStore):
    """Namespaces and what is in them; call ``open`` first.

    ``listeners`` are called in the event loop, in the order of the commits, with an entity
    before an update or a deletion, and the one after it or None.  Creations are not told.
    ``commit_listeners`` hear the same of what was changed here alone, and not of what another
    server has changed.  They must not raise.
    """

    def __init__(
        self,
        database: Database,
        *,
        kinds: RuntimeKinds,
        limits: SystemLimits,
        clock_ms: Callable[[], int],
    ) -> None:
        super().__init__(database, clock_ms=clock_ms)
        self.kinds = kinds
        self.limits = limits
        self.listeners: list[Listener] = []
        self.commit_listeners: list[Listener] = []
        self._cache: OrderedDict[tuple[str, str], Entity] = OrderedDict()
        self._cached_code_bytes = 0
        self._changes = 0
        self.namespace_listeners.append(self._forget_contents)

    # Look-up.

    def cached(self, kind: type[E], namespace: str, path: str) -> E | None:
        """Return the entity if it is in memory.  None says nothing about whether it exists."""
        key = (namespace, path)
        entity = self._cache.get(key)
        if not isinstance(entity, kind):
            return None
        self._cache.move_to_end(key)
        return entity

    async def find(self, kind: type[E], namespace: str, path: str) -> E | None:
        """Return the entity of this name, or None.

        Raises: ApiError 409 when the name belongs to something of another kind.
        """
        entity = self.cached(kind, namespace, path)
        return await self._load(kind, namespace, path) if entity is None else entity

    async def get(self, kind: type[E], namespace: str, path: str) -> E:
        """Return the entity of this name.  Raises: ApiError 404; 409 as ``find``."""
        entity = await self.find(kind, namespace, path)
        if entity is None:
            raise not_found()
        return entity

    async def _load(self, kind: type[E], namespace: str, path: str) -> E | None:
        changes = self._changes
        statement = select(entities_table).where(*_at(namespace, path))
        row = await self._database.read(lambda c: c.execute(statement).one_or_none())
        if row is None:
            return None
        if row.collection != kind.collection:
            raise wrong_collection()
        entity = _from_row(kind, row, row.code)
        # A change that was committed meanwhile may be newer than what was read.
        if changes == self._changes:
            self._cache_put(entity)
        return entity

    async def list(
        self, kind: type[E], namespace: str, skip: int, limit: int | None, *, package: str = ""
    ) -> Sequence[E]:
        """Return the entities of a kind without their code, last updated first.

        With ``package`` only the actions in it.
        """
        columns = [column for column in entities_table.c if column.name != "code"]
        statement = (
            select(*columns)
            .where(*_all_of(kind, namespace, package))
            .order_by(entities_table.c.updated.desc(), entities_table.c.revision.desc())
            .offset(skip)
            .limit(limit)
        )
        return await self._database.read(
            lambda c: [_from_row(kind, row, None) for row in c.execute(statement)]
        )

    async def count(
        self, kind: type[E], namespace: str, skip: int = 0, *, package: str = ""
    ) -> int:
        """Return how many entities of a kind there are after the first ``skip``."""
        statement = _count_of(kind, namespace, package)
        total = await self._database.read(lambda c: c.scalar(statement))
        return max(0, (total or 0) - skip)

    # Change.

    async def put_action(
        self, namespace: str, path: str, body: dict[str, Any], overwrite: bool
    ) -> Action:
        """Create or update an action as the PUT body says; return it as stored.

        Raises: ApiError 400, 403, 404 (no such package), 409 (exists and not ``overwrite``;
        changed by someone else meanwhile) or 413, and nothing changed.
        """
        package, name = split_path(path)
        if package is not None:
            await self.own_package(namespace, package)
        old = await self.basis(Action, namespace, path, overwrite)
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

        def package_exists(connection: Connection) -> None:
            if package is not None:
                where = _at(namespace, package)
                if connection.scalar(select(entities_table.c.revision).where(*where)) is None:
                    raise not_found_named(f"{namespace}/{package}")

        (action,) = await self.save([(old, draft)], overwrite=overwrite, guard=package_exists)
        assert isinstance(action, Action)
        return action

    async def own_package(self, namespace: str, name: str) -> Package:
        """Return a package in which its owner may change actions.

        Raises: ApiError 404; 400 for a binding.
        """
        package = await self.find(Package, namespace, name)
        if package is None:
            raise not_found_named(f"{namespace}/{name}")
        if package.binding is not None:
            raise ApiError(400, "Operation not permitted on package binding.")
        return package

    async def put_package(
        self, namespace: str, name: str, body: dict[str, Any], overwrite: bool
    ) -> Package:
        """Create or update a package as the PUT body says; return it as stored.

        Raises: ApiError as ``put_action``, and nothing changed.  What a binding stands for is
        the business of ``resolution.check_binding``.
        """
        old = await self.basis(Package, namespace, name, overwrite)
        rules: dict[str, Any] = {"now_ms": self._clock_ms(), "limits": self.limits}
        if old is None:
            draft = create_package(namespace, name, body, **rules)
        else:
            draft = update_package(old, body, **rules)
        (package,) = await self.save([(old, draft)], overwrite=overwrite)
        assert isinstance(package, Package)
        return package

    async def delete_package(self, namespace: str, name: str, force: bool) -> Package:
        """Delete a package, with the actions in it if ``force``; return it as it was.

        Raises: ApiError 404; 409 when it is not empty, and nothing changed.
        """
        package = await self.existing(Package, namespace, name)
        inside = await self.list(Action, namespace, 0, None, package=name)
        if inside and not force:
            entities = "entity" if len(inside) == 1 else "entities"
            raise ApiError(
                409,
                f"Package not empty (contains {len(inside)} {entities}). "
                "Set force param or delete package contents.",
            )

        def nothing_new(connection: Connection) -> None:
            count = connection.scalar(_count_of(Action, namespace, name))
            if count != len(inside):
                raise concurrent_modification()

        await self.save([*((each, None) for each in inside), (package, None)], guard=nothing_new)
        return package

    async def delete_action(self, namespace: str, path: str) -> Action:
        """Delete an action and return it as it was.

        Raises: ApiError 404; 409 when it was changed meanwhile, and nothing changed.
        """
        package, _ = split_path(path)
        if package is not None:
            await self.own_package(namespace, package)
        old = await self.existing(Action, namespace, path)
        await self.save([(old, None)])
        return old

    async def basis(self, kind: type[E], namespace: str, path: str, overwrite: bool) -> E | None:
        """Return what a PUT changes; None: it creates.  Raises: ApiError 409.

        From the database: the basis must not be what another node changed since.
        """
        old = await self._load(kind, namespace, path)
        if old is not None and not overwrite:
            raise already_exists()
        return old

    async def existing(self, kind: type[E], namespace: str, path: str) -> E:
        """Return what is to be changed, from the database.  Raises: ApiError 404; 409."""
        old = await self._load(kind, namespace, path)
        if old is None:
            raise not_found()
        return old

    def now_ms(self) -> int:
        """Return the time of a change that is made now, in ms since the epoch."""
        return self._clock_ms()

    async def save(
        self,
        changes: Sequence[tuple[Entity | None, Entity | None]],
        *,
        overwrite: bool = True,
        guard: Guard | None = None,
    ) -> Sequence[Entity]:
        """Commit changes, each from an old entity to a new one, all of them or none.

        None is what is created or deleted.  A caller that is cancelled meanwhile does not stop
        it.  ``guard`` looks at the database in the same
        transaction and raises if it may not be.  Returns the new ones, with their revisions.
        Raises: ApiError 409 when something was changed meanwhile, what ``guard`` raises, and
        nothing changed.
        """
        return await self._to_the_end(self._save(changes, overwrite, guard))

    async def _save(
        self,
        changes: Sequence[tuple[Entity | None, Entity | None]],
        overwrite: bool,
        guard: Guard | None,
    ) -> Sequence[Entity]:
        def write(connection: Connection) -> list[Entity]:
            if guard is not None:
                guard(connection)
            stored = []
            for old, new in changes:
                if new is not None:
                    new = new.with_revision(_next_revision(connection))
                    stored.append(new)
                _write(connection, old, new)
            return stored

        try:
            stored = await self._database.write(write)
        except IntegrityError:  # created by someone else since the look-up
            raise (concurrent_modification() if overwrite else already_exists()) from None
        except DatabaseUnavailable as error:
            if error.uncertain:
                self._distrust(changes)
            raise
        self._changes += 1
        for old, new in changes:
            if new is None and old is not None:
                self._cache_drop((old.namespace, old.path))
        for new in stored:
            self._cache_put(new)
        now = {(each.namespace, each.path): each for each in stored}
        for old, _ in changes:
            if old is not None:
                self._tell(old, now.get((old.namespace, old.path)), here=True)
        return stored

    def _distrust(self, changes: Sequence[tuple[Entity | None, Entity | None]]) -> None:
        """Nobody knows whether these were made: what is known of them is read again."""
        self._changes += 1
        for old, new in changes:
            if old is not None:
                self._cache_drop((old.namespace, old.path))
                self._tell(old, new, here=True)

    async def changed_elsewhere(self, at: Sequence[tuple[str, str]]) -> None:
        """Take over what another server has updated or deleted, by namespace and path.

        Listeners are told, as of changes made here.
        """
        self._changes += 1  # what is being read now may be older
        rows = await self._database.read(
            lambda c: [c.execute(select(entities_table).where(*_at(*k))).one_or_none() for k in at]
        )
        self._changes += 1
        for key, row in zip(at, rows, strict=True):
            old = self._cache.get(key)
            if old is not None and row is not None and old.revision >= row.revision:
                continue  # read since
            self._cache_drop(key)
            kind = None if row is None else _TOLD.get(row.collection)
            if row is not None and old is not None and old.collection == row.collection:
                kind = type(old)
            new = None if row is None or kind is None else _from_row(kind, row, row.code)
            if old is None and new is not None:
                # Whatever it was before; what is made of this very revision stays in use.
                old = new.with_revision(new.revision - 1)
            if old is not None:
                self._tell(old, new, here=False)
            elif row is None:
                # Nobody knows what it was: whoever has used it has to look again.
                self.forget(key[0])

    def _tell(self, old: Entity, new: Entity | None, *, here: bool) -> None:
        for listener in (*self.listeners, *(self.commit_listeners if here else ())):
            listener(old, new)

    def forget(self, namespace: str) -> None:
        """Have everybody read anew what is in a namespace."""
        for listener in self.namespace_listeners:
            listener(namespace)

    def forget_all(self) -> None:
        """Have everybody read everything anew."""
        for identity in self.namespaces():
            self.forget(identity.namespace)

    def _forget_contents(self, namespace: str) -> None:
        """A namespace is not what it was: what is read of it next comes from the database."""
        self._changes += 1
        for key in [key for key in self._cache if key[0] == namespace]:
            self._cache_drop(key)

    # The cache: bounded by count and by code, the longest unused goes first.

    def _cache_put(self, entity: Entity) -> None:
        key = (entity.namespace, entity.path)
        self._cache_drop(key)
        self._cache[key] = entity
        self._cached_code_bytes += len(entity.code or "")
        while (
            len(self._cache) > CACHED_ENTITIES_MAX
            or self._cached_code_bytes > CACHED_CODE_BYTES_MAX
        ):
            self._cache_drop(next(iter(self._cache)))

    def _cache_drop(self, key: tuple[str, str]) -> None:
        entity = self._cache.pop(key, None)
        if entity is not None:
            self._cached_code_bytes -= len(entity.code or "")


_TOLD: Final[dict[str, type[Entity]]] = {kind.collection: kind for kind in (Action, Package)}
"""What routes are made of: a change of others is no news unless they are in memory."""


def _at(namespace: str, path: str) -> tuple[Any, Any]:
    return entities_table.c.namespace == namespace, entities_table.c.path == path


def _all_of(kind: type[Entity], namespace: str, package: str) -> list[Any]:
    columns = entities_table.c
    where = [columns.namespace == namespace, columns.collection == kind.collection]
    if package:
        # No LIKE: SQLite's takes upper and lower case for the same.
        start = f"{package}/"
        where.append(func.substr(columns.path, 1, len(start)) == start)
    return where


def _count_of(kind: type[Entity], namespace: str, package: str) -> Any:
    statement = select(func.count()).select_from(entities_table)
    return statement.where(*_all_of(kind, namespace, package))


def _next_revision(connection: Connection) -> int:
    """Draw a revision that was never used, not even by an entity that is deleted since."""
    where = meta.c.name == "revision"
    connection.execute(meta.update().where(where).values(value=meta.c.value + 1))
    return int(connection.execute(select(meta.c.value).where(where)).scalar_one())


def _write(connection: Connection, old: Entity | None, new: Entity | None) -> None:
    """Insert, update or delete a row that is still what ``old`` was.  Raises: ApiError 409."""
    if old is None:
        assert new is not None, "a change from nothing to nothing"
        connection.execute(entities_table.insert(), _to_row(new))
        return
    where = (*_at(old.namespace, old.path), entities_table.c.revision == old.revision)
    if new is None:
        done = connection.execute(entities_table.delete().where(*where))
    else:
        done = connection.execute(entities_table.update().where(*where).values(**_to_row(new)))
    if done.rowcount != 1:
        raise concurrent_modification()


def _to_row(entity: Entity) -> dict[str, Any]:
    return {
        "namespace": entity.namespace,
        "path": entity.path,
        "collection": entity.collection,
        "revision": entity.revision,
        "updated": entity.updated,
        "document": orjson.dumps(entity.stored()),
        "code": entity.code,
    }


def _from_row(kind: type[E], row: Row[Any], code: str | None) -> E:
    return kind.from_document(orjson.loads(row.document), revision=row.revision, code=code)
