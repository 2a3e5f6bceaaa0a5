"""Every scheduler and invoker is started anew under load, one after the other, and an upgrade."""

import asyncio
import sys
from collections.abc import Iterator

import pytest
from cluster.load import Load, check
from cluster.started import started
from waiting import until, wait_until

from acs_node.cluster.local import LocalCluster, NodeProcess

LEASE_S = 3

NEXT_RELEASE = (
    "from acs_node import peer_link, cli; "
    "peer_link.PROTOCOL, peer_link.OLDEST = peer_link.PROTOCOL + 1, peer_link.PROTOCOL; "
    "cli.main()"
)
"""A node whose protocol is newer by one, and which still speaks ours."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with started(schedulers=2, invokers=2, lease_s=LEASE_S) as made:
        yield made


async def test_rolling_restarts_and_an_upgrade_fail_no_activation(cluster: LocalCluster) -> None:
    users = Load(cluster.url, cluster.auth, cluster.folder / "runs")
    await users.deploy()
    codes: list[int] = []

    def answered(more: int) -> None:
        """Wait until the load has got so many answers more."""
        goal = len(users.answered_s) + more
        deadline = asyncio.run_coroutine_threadsafe(_reaches(users, goal), loop)
        deadline.result(60)

    def restart(node: NodeProcess) -> None:
        codes.append(node.stop())
        node.start()
        answered(50)

    def during() -> None:
        answered(50)
        for node in cluster.of("scheduler") + cluster.of("invoker"):
            restart(node)
        for node in cluster.of("scheduler"):
            node.command = (sys.executable, "-P", "-c", NEXT_RELEASE)  # type: ignore[assignment]
            restart(node)

    loop = asyncio.get_running_loop()
    await users.run(during)
    verdict = await check(users)
    print(dict(users.statuses), users.broken, str(verdict)[:500])
    assert codes == [0] * 6
    assert (verdict.lost, verdict.twice, verdict.unrun) == ([], [], [])
    assert (verdict.unknown, verdict.failed, users.broken) == (0, [], 0)
    assert set(users.statuses) <= {200, 202}


async def _reaches(users: Load, goal: int) -> None:
    await until(lambda: len(users.answered_s) >= goal, f"{goal} answers", 60)


def test_a_node_two_releases_behind_is_refused_and_says_why(cluster: LocalCluster) -> None:
    (scheduler, _) = cluster.of("scheduler")
    scheduler.stop()
    ahead = NEXT_RELEASE.replace("peer_link.PROTOCOL; cli", "peer_link.PROTOCOL + 1; cli")
    assert ahead != NEXT_RELEASE
    scheduler.command = (sys.executable, "-P", "-c", ahead)  # type: ignore[assignment]
    scheduler.start()
    log = cluster.of("controller")[0].log
    says = "hello.protocol is 1, the oldest 1; this node speaks 2..2"
    wait_until(lambda: says in log.read_text(), f"{says!r} in the controller's log", 30)
