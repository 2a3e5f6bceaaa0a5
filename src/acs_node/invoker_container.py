"""What an invoker knows of one of its containers, beside what the pool decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from acs_core.events import Activation, QueueSpec

from .container_connection import ContainerConnection, ContainerConnections, FreshConnections
from .entity_types import Action
from .sandboxes import Sandbox


@dataclass(slots=True, eq=False)
class RunningActivation:
    """An activation in a container, from its ``/init`` or ``/run`` to its end; as in ``Result``.

    ``started_us`` is when ``/init`` was sent, and then ``/run``.
    """

    activation: Activation
    started_us: int
    started_ms: int
    wait_us: int
    initialising: bool = False
    init_us: int = 0


@dataclass(slots=True, eq=False)
class Container:
    """A container with its sandbox and what runs in it, by activation id.

    ``spec`` and ``action`` are not set while it is prewarmed, for nobody yet.
    """

    name: str
    spec: QueueSpec = field(init=False, repr=False)
    action: Action = field(init=False, repr=False)
    sandbox: Sandbox | None = None
    connection: ContainerConnection | ContainerConnections | FreshConnections | None = None
    runs: dict[str, RunningActivation] = field(default_factory=dict)
    # How it ended under its last run, if it did.
    failed: str = ""
    # Ended runs whose logs were not handed on, with the time until which they are waited for.
    unlogged: list[tuple[str, int]] = field(default_factory=list)
