"""The nodes of one process in the test's own loop: real stores, core and process sandboxes.

async with open_house() as house:
    await house.put("hello", "def main(args): return args")
    answer = await house.invoke("hello", {"a": 1})
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import WAITS_AT_GATE, eventually

from acs_core.containers import ContainerPool, PoolConfig
from acs_core.scheduler import SchedulerConfig
from acs_node import clock
from acs_node.activations import ActivationStore, Record
from acs_node.controller import Controller
from acs_node.coordination import Coordination, MemoryCoordination
from acs_node.database import Database
from acs_node.entities import EntityStore, Identity, RuntimeKinds, SystemLimits
from acs_node.errors import ApiError
from acs_node.invocations import BLOCKING_MS_MAX, Invocation
from acs_node.invoker import Invoker
from acs_node.links import Inbox, LocalLink
from acs_node.sandboxes import SandboxEngine
from acs_node.sandboxes.process import ProcessEngine
from acs_node.scheduler_node import SchedulerNode

INVOKER = "invoker0"
DEADLINE_S = 10.0
ECHO = "def main(args):\n    return args\n"
WAITS = (
    WAITS_AT_GATE
    + """
def main(args):
    at_gate(args)
    return {'n': args.get('n')}
"""
)


@dataclass
class Answer:
    """What a caller was told: a status, a body or an error's text, an activation id."""

    status: int
    body: Any
    activation_id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Recorder:
    """A caller that keeps its answers; ``answered`` is done with the first one."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        self._take(Answer(status, json.loads(body), activation_id))

    def fail(self, error: ApiError) -> None:
        self._take(Answer(error.status, error.text, None, dict(error.headers)))

    def _take(self, answer: Answer) -> None:
        self.answers.append(answer)
        if not self.answered.done():
            self.answered.set_result(answer)


@dataclass
class House:
    """The parts, and short ways to use them as a client would."""

    folder: Path
    database: Database
    entities: EntityStore
    activations: ActivationStore
    controller: Controller
    scheduler: SchedulerNode
    coordination: Coordination
    invoker: Invoker
    inbox: Inbox
    identity: Identity
    credential: tuple[str, str]

    async def put(self, name: str, code: str = ECHO, **body: Any) -> None:
        """Create or update a python action."""
        document = {"exec": {"kind": "python:3", "code": code}, **body}
        await self.entities.put_action("guest", name, document, overwrite=True)

    def start(
        self,
        name: str,
        arguments: Any = None,
        *,
        blocking: bool = True,
        result: bool = True,
        timeout_ms: int = BLOCKING_MS_MAX,
        caller: Recorder | None = None,
        namespace: str = "guest",
    ) -> Recorder:
        """Invoke an action; the answer comes to the caller."""
        caller = caller or Recorder()
        body = b"" if arguments is None else json.dumps(arguments).encode()
        invocation = Invocation(namespace, name, blocking, result, timeout_ms)
        try:
            self.controller.invoke(self.identity, invocation, body, "t" * 32, caller)
        except ApiError as error:
            caller.fail(error)
        return caller

    async def invoke(self, name: str, arguments: Any = None, **how: Any) -> Answer:
        """Invoke an action and wait for the answer."""
        caller = self.start(name, arguments, **how)
        return await asyncio.wait_for(caller.answered, DEADLINE_S)

    async def record(self, activation_id: str) -> Record:
        """Wait for the record of an activation, with its logs."""

        async def found() -> Record | None:
            await self.controller.settled(activation_id)
            return await self.activations.get("guest", activation_id)

        return await eventually(found, f"the record of {activation_id}", DEADLINE_S)

    async def document(self, activation_id: str) -> Any:
        """Wait for the record of an activation and return it as clients see it."""
        return json.loads((await self.record(activation_id)).full())

    def sizes(self) -> dict[str, int]:
        """Return the sizes of everything in the nodes that holds work, or what work left behind."""
        controller, scheduler, invoker = self.controller, self.scheduler, self.invoker
        held: dict[str, Sized] = {
            "open_queues": controller._open_queues,
            "throttled": controller._throttled,
            "pending": controller._pending,
            "waiting": controller._patience.waiting,
            "unlogged": controller._unlogged.records,
            "settling": controller._unlogged.settling,
            "controller_tasks": controller._tasks,
            "opening": scheduler._opening,
            "scheduler_tasks": scheduler._tasks,
            "containers": invoker._containers,
            "talking": invoker._logs.talking,
            "invoker_tasks": invoker._tasks,
            "inbox": self.inbox._waiting,
            "core_queues": scheduler.scheduler.queues(),
            "core_containers": scheduler.scheduler.containers(),
        }
        if isinstance(self.coordination, MemoryCoordination):
            held["reserved"] = self.coordination._containers
        counts = scheduler.scheduler.counts()
        under_way = {"core_activations": counts["waiting"] + counts["delivered"]}
        return {name: len(each) for name, each in held.items()} | under_way

    def check(self) -> None:
        """Assert the invariants of both cores."""
        self.scheduler.scheduler.check()
        self.invoker.pool.check()


@asynccontextmanager
async def open_house(
    *,
    memory_mb: int = 1024,
    containers_max: int = 100,
    engine: Callable[[Path], SandboxEngine] = ProcessEngine,
    coordination: Coordination | None = None,
    pool: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Link the nodes; ``pool``, ``scheduler`` and ``store`` go to their configurations."""
    with tempfile.TemporaryDirectory(prefix="acs-") as temporary:
        folder = Path(temporary)
        database = Database(f"sqlite:///{folder / 'acs.db'}")
        await database.open()
        entities = EntityStore(
            database, kinds=RuntimeKinds(), limits=SystemLimits(), clock_ms=clock.wall_ms
        )
        await entities.open()
        credential = await entities.create_namespace("guest")
        identity = await entities.namespace("guest")
        assert identity is not None
        activations = ActivationStore(
            database, clock_ms=clock.wall_ms, **{"buffer_max": 10_000, **(store or {})}
        )
        coordination = coordination or MemoryCoordination({INVOKER: memory_mb})
        controller = Controller(entities, activations, containers_max)
        node = SchedulerNode(
            SchedulerConfig(
                name="s1", namespace_containers_max=containers_max, **(scheduler or {})
            ),
            coordination,
        )
        invoker = Invoker(
            ContainerPool(PoolConfig(INVOKER, memory_mb, **(pool or {}))),
            engine(folder),
            controller.action_of,
            {"__OW_API_HOST": "http://127.0.0.1:1"},
        )
        inbox = Inbox()
        to_scheduler = LocalLink(node.receive, inbox)
        to_controller = LocalLink(controller.receive, inbox)
        controller.connect(to_scheduler)
        node.connect(to_controller, {INVOKER: LocalLink(invoker.receive, inbox)})
        invoker.connect(to_scheduler, to_controller)
        to_scheduler.send(invoker.report())
        try:
            yield House(
                folder, database, entities, activations, controller, node, coordination,
                invoker, inbox, identity, credential,
            )  # fmt: skip
        finally:
            controller.close()
            await node.close()
            await invoker.close()
            await asyncio.wait_for(activations.close(), DEADLINE_S)
            await database.close()
