"""Runs compositions: makes the calls that ``compositions`` asks for, and writes their records.

A component is an ordinary activation whose record says by ``cause`` of which composition it is
a part.  Nothing here waits for a client, and the service level of a component is that of any
other activation: a composition that is lost with its server ends as *unknown*.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from . import clock
from .action_schema import SEQUENCE, SEQUENCE_ACTIONS_MAX
from .activations import Record
from .compositions import (
    Budget,
    Call,
    Ended,
    Steps,
    component_names,
    conductor,
    is_composition,
    refusal_in_composition,
    refusal_in_sequence,
    sequence,
    too_long,
)
from .entities import EntityStore
from .entity_types import Identity
from .errors import ApiError
from .resolution import Resolved, resolve_action
from .routes import CompositionRoute

__all__ = ["Composer", "Run"]


@dataclass(slots=True)
class Run:
    """What all activations of a composition have in common, and its own account."""

    identity: Identity
    tid: str
    causes: tuple[str, ...]  # functions that wait for it, the outermost first
    activation_id: str
    cause: str = ""  # the composition that contains this one
    depth: int = 0  # how many compositions contain it
    budget: Budget = field(default_factory=Budget)
    start_ms: int = field(default_factory=clock.wall_ms)
    duration_ms: int = 0
    memory_mb: int = 0
    components: list[str] = field(default_factory=list)


Component = Callable[[Run, Resolved, bytes], Awaitable[tuple[Record, bytes]]]
"""Run an action as a part of a composition; return its record, and the JSON of its result.
Raises: ApiError when it is refused."""


class Composer:
    """``component`` runs actions, ``new_id`` makes ids, ``put`` takes records."""

    def __init__(
        self,
        entities: EntityStore,
        component: Component,
        new_id: Callable[[int], str],
        put: Callable[[Record], None],
    ) -> None:
        self._entities = entities
        self._component = component
        self._new_id = new_id
        self._put = put

    async def check(self, identity: Identity, resolved: Resolved) -> None:
        """Check that a caller may invoke all components of a sequence, as far as they exist.

        Raises: ApiError 403.
        """
        if resolved.action.exec.kind != SEQUENCE:
            return
        for namespace, path in component_names(resolved.action):
            try:
                await resolve_action(self._entities, identity.namespace, namespace, path)
            except ApiError as error:
                if error.status == 403:
                    raise

    async def run(
        self, run: Run, route: CompositionRoute, arguments: bytes
    ) -> tuple[Record, bytes]:
        """Run a composition to its end; return its record with logs, and the JSON of its result."""
        action = route.action
        steps: Steps
        if action.exec.kind == SEQUENCE:
            steps = sequence(component_names(action), arguments)
        else:
            name = (action.namespace, action.path)
            steps = conductor(name, run.identity.namespace, arguments, run.budget)
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._call(run, route, call))
        except StopIteration as end:
            ended: Ended = end.value
        record = route.record(run, ended.outcome, ended.result)
        return record, ended.result

    async def _call(self, run: Run, route: CompositionRoute, call: Call) -> Ended:
        """Make one call and book what it took; say how it ended."""
        try:
            if call.itself:
                return await self._atomic(run, route.resolved, call.arguments)
            resolved = await resolve_action(self._entities, run.identity.namespace, *call.name)
            if is_composition(resolved.action):
                if route.action.exec.kind != SEQUENCE:
                    run.budget.actions += 1
                return await self._nested(run, resolved, call.arguments)
            run.budget.actions += 1
            if run.budget.actions > SEQUENCE_ACTIONS_MAX:
                return too_long()
            return await self._atomic(run, resolved, call.arguments)
        except ApiError as error:
            if route.action.exec.kind == SEQUENCE:
                return refusal_in_sequence(error)
            return refusal_in_composition(call.name, error)

    async def _atomic(self, run: Run, resolved: Resolved, arguments: bytes) -> Ended:
        record, result = await self._component(run, resolved, arguments)
        run.memory_mb = max(run.memory_mb, resolved.action.limits.memory_mb)
        return _book(run, record, record.end_ms - record.start_ms, result)

    async def _nested(self, run: Run, resolved: Resolved, arguments: bytes) -> Ended:
        """Run a composition within another one: its calls count as the outer one's."""
        if run.depth >= SEQUENCE_ACTIONS_MAX:
            return too_long()
        await self.check(run.identity, resolved)
        inner = Run(
            run.identity,
            run.tid,
            run.causes,
            self._new_id(clock.wall_ms()),
            cause=run.activation_id,
            depth=run.depth + 1,
            budget=run.budget,
        )
        record, result = await self.run(inner, CompositionRoute(resolved, run.identity), arguments)
        self._put(record)
        run.memory_mb = max(run.memory_mb, inner.memory_mb)
        return _book(run, record, inner.duration_ms, result)


def _book(run: Run, record: Record, duration_ms: int, result: bytes) -> Ended:
    run.components.append(record.activation_id)
    run.duration_ms += duration_ms
    return Ended(record.status_code, result)
