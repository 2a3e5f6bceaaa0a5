"""The REST API without the nodes behind it: the application on real stores, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from node.house import House, open_house

from acs_node.activations import ActivationStore
from acs_node.api import create_app
from acs_node.database import Database
from acs_node.entities import EntityStore, RuntimeKinds, SystemLimits
from acs_node.firing import Firing

T0 = 1_700_000_000_000


@dataclass
class Server:
    entities: EntityStore
    activations: ActivationStore
    client: httpx.AsyncClient
    auth: httpx.BasicAuth

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        arguments.setdefault("auth", self.auth)
        return await self.client.request(method, path, **arguments)

    async def error(self, method: str, path: str, **arguments: Any) -> tuple[int, str]:
        """Return status and text of a refusal, having checked the form of its body."""
        response = await self.call(method, path, **arguments)
        body = response.json()
        assert response.headers["content-type"] == "application/json"
        assert set(body) == {"error", "code"}
        assert body["code"] == response.headers["x-request-id"]
        return response.status_code, body["error"]


@asynccontextmanager
async def open_server(folder: Path) -> AsyncIterator[Server]:
    """Serve a namespace ``guest``; every size of a PUT body is bounded by 1,000 bytes."""
    database = Database(f"sqlite:///{folder}/acs.db")
    await database.open()
    limits = SystemLimits(
        code_bytes_max=1000, parameters_bytes_max=1000, annotations_bytes_max=1000
    )
    entities = EntityStore(database, kinds=RuntimeKinds(), limits=limits, clock_ms=lambda: T0)
    await entities.open()
    activations = ActivationStore(database, clock_ms=lambda: T0, buffer_max=1000)
    credential = await entities.create_namespace("guest")
    async with _serve(entities, activations, credential) as server:
        yield server
    await activations.close()
    await database.close()


@asynccontextmanager
async def open_whole_server() -> AsyncIterator[tuple[Server, House]]:
    """Serve the API of a house: what is fired and composed runs."""
    async with open_house() as house:
        fire = Firing(house.entities, house.activations, house.controller).fire
        more = {
            "settled": house.controller.settled,
            "fire": fire,
            "invoke": house.controller.invoke,
        }
        async with _serve(house.entities, house.activations, house.credential, **more) as server:
            yield server, house


@asynccontextmanager
async def _serve(
    entities: EntityStore, activations: ActivationStore, credential: tuple[str, str], **more: Any
) -> AsyncIterator[Server]:
    app = create_app(entities, activations, info={"build": "2026-01-01", "buildno": "1"}, **more)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://acs") as client:
        yield Server(entities, activations, client, httpx.BasicAuth(*credential))
