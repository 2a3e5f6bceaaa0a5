"""What tests of this folder are given."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from node.transports import FRAMES, GRPC, Transport


@pytest.fixture(params=[GRPC, FRAMES], ids=lambda each: str(each.name))
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each of what links are made of, one after the other."""
    found = request.param
    assert isinstance(found, Transport)
    return found


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests on the loop that nodes run on: its transports are not asyncio's."""
    return {"uvloop": uvloop.new_event_loop}
