"""The nodes of one process with a real Docker Engine, and whether the two agree.

async with docker_house(client) as house:
    await house.put("hello", "def main(args): return args")
    record = await house.ends_badly("hello")
    await house.goes_on()
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from docker import DockerClient
from node.house import ECHO, House, open_house
from waiting import eventually

from acs_node.sandboxes.docker import DockerEngine
from acs_node.sandboxes.docker_containers import CONTAINER_LABEL, INSTANCE_LABEL

AGREE_S = 20.0
"""How long engine and pool may take to agree: some removals of a busy engine."""


class DockerHouse:
    """A house whose containers are real ones, and what must be true of it after each fault."""

    def __init__(self, house: House, engine: DockerEngine, client: DockerClient, instance: str):
        self.house = house
        self.engine = engine
        self.client = client
        self.instance = instance
        self.invoked = 0
        self.put = house.put

    def containers(self) -> dict[str, str]:
        """Return what ``docker ps -a`` shows of this house: our names to the engine's ids."""
        found = self.client.api.containers(
            all=True, filters={"label": f"{INSTANCE_LABEL}={self.instance}"}
        )
        return {each["Labels"][CONTAINER_LABEL]: each["Id"] for each in found}

    async def container(self) -> str:
        """Return the engine's id of the one container there is."""
        (handle,) = (await asyncio.to_thread(self.containers)).values()
        return handle

    async def invoke(self, name: str, arguments: Any = None) -> Any:
        """Invoke an action and return its whole record, logs included."""
        self.invoked += 1
        answer = await asyncio.wait_for(self.house.start(name, arguments).answered, 30.0)
        assert answer.activation_id is not None, answer
        return await self.house.document(answer.activation_id)

    async def ends_badly(self, name: str, arguments: Any = None, *, says: str) -> Any:
        """Invoke an action and return the record, whose error must contain ``says``."""
        record = await self.invoke(name, arguments)
        assert not record["response"]["success"]
        error = record["response"]["result"]["error"]
        assert says in error, error
        return record

    async def goes_on(self, *names: str) -> None:
        """Assert what holds after every fault, for ``names`` and for another action.

        The next activations work; each activation has exactly its record; the pool holds the
        containers and the memory that the engine says there are, and no folder or work is left.
        """
        for name in names:
            record = await self.invoke(name, {"good": True})
            assert record["response"]["result"] == {"good": True}, record
        await self.house.put("next", ECHO)
        record = await self.invoke("next", {"n": 1})
        assert record["response"]["result"] == {"n": 1}, record
        assert await self.house.activations.count("guest") == self.invoked
        await self.agrees()
        sizes = self.house.sizes()
        for what in ("pending", "waiting", "unlogged", "core_activations", "settling"):
            assert sizes[what] == 0, what

    async def agrees(self) -> None:
        """Wait until engine, folders and pool name the same containers with the same memory."""
        seen: list[str] = []

        async def agree() -> bool:
            seen[:] = await self._differences()
            return not seen

        try:
            await eventually(agree, "engine, folders and pool to agree", AGREE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}") from None
        self.house.check()

    async def _differences(self) -> list[str]:
        there = await asyncio.to_thread(self.containers)
        memory_mb = 0
        for handle in there.values():
            try:
                config = await asyncio.to_thread(self.client.api.inspect_container, handle)
            except OSError:
                return ["a container went while it was looked at"]
            memory_mb += config["HostConfig"]["Memory"] >> 20
        pool = self.house.invoker
        known = {each.sandbox.spec.container for each in pool._containers.values() if each.sandbox}
        folders = {each.name for each in (self.house.folder / "sandboxes").iterdir()}
        found = []
        if there.keys() != known:
            found.append(f"the engine has {sorted(there)}, the pool {sorted(known)}")
        if folders != known:
            found.append(f"the folders are {sorted(folders)}, the pool has {sorted(known)}")
        if memory_mb != pool.pool.used_mb():
            found.append(f"the engine holds {memory_mb} MB, the pool {pool.pool.used_mb()} MB")
        if pool._tasks:
            found.append(f"{len(pool._tasks)} tasks of the invoker are under way")
        return found


@asynccontextmanager
async def docker_house(
    client: DockerClient,
    *,
    engine: Callable[..., DockerEngine] = DockerEngine,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[DockerHouse]:
    """Open a house on the engine of ``client``; ``options`` go to the engine, ``more`` to it.

    At its end nothing of it may be left on the engine.
    """
    instance = f"test-{uuid.uuid4().hex}"
    made: list[DockerEngine] = []

    def make(folder: Path) -> DockerEngine:
        given = {"instance": instance, "client": client, "network": "none"} | (options or {})
        made.append(engine(folder, **given))
        return made[0]

    async with open_house(engine=make, **more) as house:
        docker = DockerHouse(house, made[0], client, instance)
        yield docker
    assert docker.containers() == {}
