"""What is done again and again: after an error as well, and no more once it is closed."""

from __future__ import annotations

import asyncio
import logging

import pytest
from waiting import until

from acs_node.cluster.periodic import Periodic
from acs_node.etcd import EtcdError


@pytest.mark.parametrize("error", [EtcdError("planted"), RuntimeError("planted")])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_time_that_fails_is_not_the_last_one(
    error: Exception, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[int] = []

    def work() -> None:
        times.append(1)
        if len(times) == 1:
            raise error

    async def waiting() -> None:
        work()

    with caplog.at_level(logging.DEBUG):
        periodic = Periodic(0.0, waiting if waits else work, "telling it")
        periodic.start()
        await until(lambda: len(times) >= 2, "the second time")
        await periodic.close()
    (record,) = [each for each in caplog.records if "telling it failed" in each.message]
    assert record.levelno == (logging.DEBUG if isinstance(error, EtcdError) else logging.ERROR)


async def test_nothing_is_done_after_the_end() -> None:
    times: list[int] = []
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()
        times.append(1)

    periodic = Periodic(0.0, work, "waiting")
    await periodic.close()  # it has not begun
    periodic.start()
    await begun.wait()
    await periodic.close()
    assert times == []
