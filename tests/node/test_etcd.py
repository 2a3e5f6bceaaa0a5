"""The etcd client against a real etcd: leases, watches that resume, members, and failures."""

import asyncio
import json
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from requirements import missing
from waiting import eventually, until

from acs_node import etcd as etcd_module
from acs_node.cluster.etcd_process import EtcdMissing, EtcdProcess
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, Lease, Watched, prefix_end, put
from acs_node.membership import Member, Membership


@pytest.fixture
async def etcd(etcd_endpoint: str) -> AsyncIterator[Etcd]:
    client = Etcd(EtcdConfig((etcd_endpoint,)))
    yield client
    await client.close()


@pytest.fixture
def cluster() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    """An etcd that the test may stop."""
    process = EtcdProcess(tmp_path / "etcd")
    try:
        process.start()
    except EtcdMissing as error:
        missing("etcd", str(error))
    yield process
    process.kill()


def test_a_prefix_ends_before_the_next_key_of_its_length() -> None:
    assert prefix_end(b"a/") == b"a0"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"


async def test_an_endpoint_where_nobody_listens_is_an_error_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(etcd_module, "CALL_S", 0.2)
    client = Etcd(EtcdConfig(("127.0.0.1:1",)))
    with pytest.raises(EtcdError, match=r"KV/Txn: no answer within 0.2 s"):
        await client.list("x")
    with pytest.raises(EtcdError, match="Lease/LeaseKeepAlive"):
        await client.keep_alive(1)
    await client.close()


async def test_the_next_endpoint_is_tried_after_a_failure(
    etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_module, "CALL_S", 0.5)
    client = Etcd(EtcdConfig(("127.0.0.1:1", etcd_endpoint)))
    with pytest.raises(EtcdError):
        await client.list("x")
    assert (await client.list("nothing-there"))[0] == []
    await client.close()


async def test_calls_that_fail_together_move_on_by_one_endpoint(
    etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_module, "CALL_S", 0.5)
    client = Etcd(EtcdConfig(("127.0.0.1:1", etcd_endpoint)))
    calls = (client.list("x"), client.list("x"), client.keep_alive(1), client.list("x"))
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, EtcdError) for error in failed)
    assert (await client.list("nothing-there"))[0] == []
    await client.close()


async def test_a_log_in_that_fails_moves_on_as_well(
    etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_module, "CALL_S", 0.5)
    client = Etcd(EtcdConfig(("127.0.0.1:1", etcd_endpoint), user="acs", password="hunter2"))
    with pytest.raises(EtcdError, match="no answer"):
        await client.list("x")
    with pytest.raises(EtcdError, match="authentication is not enabled") as raised:
        await client.list("x")
    assert "hunter2" not in str(raised.value)
    await client.close()


async def test_a_lease_that_may_have_ended_in_sleep_is_told_from_one_in_doubt(
    own_etcd: EtcdProcess,
) -> None:
    client = Etcd(EtcdConfig((own_etcd.endpoint,)))
    lease = await Lease.begin(client, 60)
    assert not lease.is_over_in_sleep()
    # Awake, and etcd does not answer: everybody is in that doubt.
    own_etcd.kill()
    valid_us, lease.valid_us = lease.valid_us, 0
    assert not lease.is_over_in_sleep()
    # The loop stands still for longer than it would.
    lease._awake_us -= etcd_module.SLEPT_US + 1
    assert lease.is_over_in_sleep()
    awake_us = lease._awake_us
    await until(lambda: lease._awake_us > awake_us, "the next look")
    assert lease.is_over_in_sleep()  # until etcd has said that it still holds
    lease.valid_us = valid_us
    assert not lease.is_over_in_sleep()
    # In a sleep that was shorter than the lease nothing has happened.
    lease._awake_us -= etcd_module.SLEPT_US + 1
    assert not lease.is_over_in_sleep()
    own_etcd.start()
    await lease.end()
    await client.close()


async def test_more_operations_than_etcd_takes_are_an_error_that_says_so(etcd: Etcd) -> None:
    with pytest.raises(EtcdError, match="too many operations"):
        await etcd.transaction((), [put(f"x{n}", b"") for n in range(129)])


async def test_a_lease_is_kept_until_it_is_revoked_and_then_known_to_be_lost(
    etcd: Etcd, cluster: str
) -> None:
    lease = await Lease.begin(etcd, 2)
    await etcd.put(f"{cluster}/x", b"", lease.id)
    first_us = lease.valid_us
    await until(lambda: lease.valid_us > first_us, "a renewal")
    assert lease.is_valid()
    await etcd.revoke(lease.id)
    await asyncio.wait_for(lease.lost, 10)
    assert not lease.is_valid()
    assert (await etcd.list(cluster))[0] == []
    await lease.end()  # etcd knows nothing of it, and that is fine


async def test_a_lease_survives_that_etcd_is_gone_for_a_while(
    own_etcd: EtcdProcess, caplog: pytest.LogCaptureFixture
) -> None:
    client = Etcd(EtcdConfig((own_etcd.endpoint,)))
    lease = await Lease.begin(client, 2)
    own_etcd.kill()
    await until(lambda: not lease.is_valid(), "the lease to be doubtful")
    assert not lease.lost.done()
    own_etcd.start()
    await until(lease.is_valid, "a renewal", within_s=20)
    assert "was not renewed" in caplog.text
    await lease.end()
    await client.close()


async def test_a_lease_survives_that_another_call_fails_while_it_is_renewed(
    own_etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Etcd(EtcdConfig((own_etcd.endpoint,)))
    lease = await Lease.begin(client, 5)
    renewed = client._beating  # held while a renewal is under way
    await until(lambda: client._beats is not None and not renewed.locked(), "the first renewal")
    await stop(own_etcd)
    await until(renewed.locked, "a renewal that is not answered")
    monkeypatch.setattr(etcd_module, "CALL_S", 0.2)  # for the call that comes now
    with pytest.raises(EtcdError, match="KV/Txn: no answer"):
        await client.list("x")
    os.kill(own_etcd.pid, signal.SIGCONT)
    monkeypatch.setattr(etcd_module, "CALL_S", 3.0)
    before_us = lease.valid_us
    await until(lambda: lease.valid_us > before_us, "a renewal after it")
    assert lease.is_valid()
    await lease.end()
    await client.close()


class Told:
    """What a watch tells."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, bytes | None]] = []

    def __call__(self, name: str, value: bytes | None) -> None:
        self.changes.append((name, value))


async def test_a_watch_tells_what_is_there_and_what_changes(etcd: Etcd, cluster: str) -> None:
    told = Told()
    await etcd.put(f"{cluster}/a", b"1")
    await etcd.put(f"{cluster}x", b"not below it")
    watched = Watched(etcd, f"{cluster}/", told)
    await watched.start()
    assert told.changes == [("a", b"1")]
    await etcd.put(f"{cluster}/a", b"2")
    await etcd.put(f"{cluster}/b", b"1")
    await etcd.delete(f"{cluster}/a")
    await until(lambda: len(told.changes) == 4, "the changes")
    assert told.changes[1:] == [("a", b"2"), ("b", b"1"), ("a", None)]
    assert watched.values == {"b": b"1"}
    await watched.close()


async def test_a_watch_misses_nothing_while_etcd_is_restarted(own_etcd: EtcdProcess) -> None:
    client = Etcd(EtcdConfig((own_etcd.endpoint,)))
    told = Told()
    watched = Watched(client, "w/", told)
    await watched.start()
    await client.put("w/a", b"1")
    await client.put("w/a", b"2")
    await until(lambda: len(told.changes) == 2, "the first changes")
    own_etcd.kill()
    own_etcd.start()
    other = Etcd(EtcdConfig((own_etcd.endpoint,)))
    await other.put("w/a", b"3")
    await other.put("w/a", b"4")
    await until(lambda: len(told.changes) >= 4, "what was missed", within_s=20)
    assert told.changes == [("a", b"1"), ("a", b"2"), ("a", b"3"), ("a", b"4")]
    await watched.close()
    await client.close()
    await other.close()


async def test_a_watch_goes_on_at_the_next_endpoint_when_another_call_fails(
    own_etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = own_etcd.endpoint.rpartition(":")[2]
    client = Etcd(EtcdConfig((own_etcd.endpoint, f"localhost:{port}")))
    watched = Watched(client, "w/", Told())
    await watched.start()
    await client.put("w/before", b"")
    await until(lambda: "before" in watched.values, "the first change")
    before = client._channel
    await stop(own_etcd)
    monkeypatch.setattr(etcd_module, "CALL_S", 0.2)  # of the call, and of the old channel's end
    with pytest.raises(EtcdError, match="KV/Txn: no answer"):
        await client.list("x")
    monkeypatch.setattr(etcd_module, "CALL_S", 3.0)
    os.kill(own_etcd.pid, signal.SIGCONT)
    assert before is not None
    await until(
        lambda: before.get_state() is grpc.ChannelConnectivity.SHUTDOWN, "the old channel's end"
    )
    await client.put("w/after", b"")
    await until(lambda: "after" in watched.values, "what changes later", within_s=20)
    await watched.close()  # its own end is still one
    await client.close()


async def test_a_watch_begins_anew_where_etcd_has_forgotten(
    etcd: Etcd, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    watched = Watched(etcd, f"{cluster}/", told)
    await etcd.put(f"{cluster}/gone", b"1")
    await etcd.put(f"{cluster}/same", b"1")
    await etcd.put(f"{cluster}/reborn", b"1")
    await etcd.put(f"{cluster}/changed", b"1")
    await watched._list()
    told.changes.clear()
    await etcd.delete(f"{cluster}/gone", f"{cluster}/reborn")
    await etcd.put(f"{cluster}/reborn", b"1")
    await etcd.put(f"{cluster}/changed", b"2")
    await etcd.put(f"{cluster}/new", b"1")
    _, revision = await etcd.list(cluster)
    await etcd.compact(revision)
    watched._watching = asyncio.ensure_future(watched._watch())
    await until(lambda: len(told.changes) == 5, "the difference")
    assert sorted(told.changes, key=str) == [
        ("changed", b"2"),
        ("gone", None),
        ("new", b"1"),
        ("reborn", None),
        ("reborn", b"1"),
    ]
    assert told.changes.index(("reborn", None)) < told.changes.index(("reborn", b"1"))
    assert "begins anew" in caplog.text
    await etcd.put(f"{cluster}/later", b"1")
    await until(lambda: "later" in watched.values, "what comes later")
    await watched.close()


async def test_a_receiver_that_raises_does_not_end_the_watch(
    etcd: Etcd, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[str] = []

    def fragile(name: str, value: bytes | None) -> None:
        if name == "bad":
            raise ZeroDivisionError("planted")
        got.append(name)

    watched = Watched(etcd, f"{cluster}/", fragile)
    await watched.start()
    await etcd.put(f"{cluster}/bad", b"")
    await etcd.put(f"{cluster}/good", b"")
    await until(lambda: got, "the next change")
    assert got == ["good"]
    assert "planted" in caplog.text
    await watched.close()


# --- members ------------------------------------------------------------------------------------


async def stop(etcd: EtcdProcess) -> None:
    """Stop it as SIGSTOP does, and wait until none of its threads runs any more."""
    os.kill(etcd.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{etcd.pid}/task")
    await until(
        lambda: all(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] in "Tt"
            for thread in threads.iterdir()
        ),
        "the stop",
    )


class Seen:
    """A membership and what it tells."""

    def __init__(self, etcd: Etcd, cluster: str, instance: str) -> None:
        self.events: list[tuple[str, str]] = []
        self.membership = Membership(
            etcd,
            cluster,
            instance,
            lambda member: self.events.append(("joined", member.instance)),
            lambda member: self.events.append(("gone", member.instance)),
        )


async def test_members_see_each_other_come_and_go_with_their_leases(
    etcd: Etcd, cluster: str
) -> None:
    seen = Seen(etcd, cluster, "me-1")
    one = Member("invoker", "i0", "i0-1", "127.0.0.1:5", 512)
    lease = await Lease.begin(etcd, 5)
    await seen.membership.join(one, lease)
    await seen.membership.start()
    own_lease = await Lease.begin(etcd, 5)
    await seen.membership.join(Member("scheduler", "me", "me-1", "127.0.0.1:6"), own_lease)
    assert seen.membership.members("invoker") == [one]
    assert seen.membership.members("scheduler") == []  # itself
    await lease.end()
    await until(lambda: len(seen.events) == 2, "the end")
    assert seen.events == [("joined", "i0-1"), ("gone", "i0-1")]
    assert seen.membership.members("invoker") == []
    await own_lease.end()
    await seen.membership.close()


async def test_a_name_is_taken_over_only_when_its_last_owner_is_gone(
    etcd: Etcd, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(etcd, cluster, "me-1")
    await seen.membership.start()
    first, second = await Lease.begin(etcd, 5), await Lease.begin(etcd, 5)
    await seen.membership.join(Member("invoker", "i0", "i0-1", "a"), first)
    joining = asyncio.ensure_future(
        seen.membership.join(Member("invoker", "i0", "i0-2", "b"), second)
    )
    await until(lambda: "is a member already" in caplog.text, "the warning")
    assert not joining.done()
    await first.end()
    await joining
    await until(lambda: len(seen.events) == 3, "the change")
    assert seen.events == [("joined", "i0-1"), ("gone", "i0-1"), ("joined", "i0-2")]
    await second.end()
    await seen.membership.close()


async def test_who_has_announced_itself_is_known_before_it_is_a_member(
    etcd: Etcd, cluster: str
) -> None:
    seen = Seen(etcd, cluster, "me-1")
    await seen.membership.start()
    member = Member("invoker", "i0", "i0-1", "a", 512)
    lease = await Lease.begin(etcd, 5)
    is_known = seen.membership.is_known
    assert not is_known("invoker", "i0", "i0-1")
    await seen.membership.announce(Member("invoker", "i0", "i0-1", "a"), lease)
    await until(lambda: is_known("invoker", "i0", "i0-1"), "the announcement")
    assert not is_known("controller", "i0", "i0-1")
    assert not is_known("invoker", "i1", "i0-1")
    assert not is_known("invoker", "i0", "i0-2")
    assert seen.events == []
    await seen.membership.join(member, lease)
    await until(lambda: seen.events, "the member")
    assert is_known("invoker", "i0", "i0-1")
    await lease.end()
    await until(lambda: not is_known("invoker", "i0", "i0-1"), "the end of both keys")
    assert seen.events == [("joined", "i0-1"), ("gone", "i0-1")]
    await seen.membership.close()


async def test_one_that_ends_before_it_joined_is_gone_as_well(etcd: Etcd, cluster: str) -> None:
    seen = Seen(etcd, cluster, "me-1")
    await seen.membership.start()
    lease = await Lease.begin(etcd, 5)
    await seen.membership.announce(Member("invoker", "i0", "i0-1", "a"), lease)
    await until(lambda: seen.membership.is_known("invoker", "i0", "i0-1"), "the announcement")
    await lease.end()
    await until(lambda: seen.events, "the end")
    assert seen.events == [("gone", "i0-1")]
    await seen.membership.close()


async def test_how_a_member_is_can_change_and_is_nothing_new_else(etcd: Etcd, cluster: str) -> None:
    seen = Seen(etcd, cluster, "me-1")
    await seen.membership.start()
    lease = await Lease.begin(etcd, 5)
    own = Seen(etcd, cluster, "i0-1")
    own.membership.tell_status("unhealthy")  # it is no member yet: nobody is told
    await own.membership.join(Member("invoker", "i0", "i0-1", "a", 512), lease)
    for status in ("unhealthy", "up", "unresponsive"):
        own.membership.tell_status(status)
        await until(
            lambda s=status: [m.status for m in seen.membership.members("invoker")] == [s],  # type: ignore[misc]
            "the status",
        )
    assert seen.events == [("joined", "i0-1")]
    (member,) = seen.membership.members("invoker")
    assert member == Member("invoker", "i0", "i0-1", "a", 512, status="unresponsive")
    await own.membership.close()
    await lease.end()
    await seen.membership.close()


async def test_a_status_is_told_when_etcd_is_back(
    own_etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Etcd(EtcdConfig((own_etcd.endpoint,)))
    lease = await Lease.begin(client, 60)
    own = Seen(client, "status", "i0-1")
    await own.membership.join(Member("invoker", "i0", "i0-1", "a"), lease)
    own_etcd.kill()
    monkeypatch.setattr(etcd_module, "CALL_S", 0.5)
    own.membership.tell_status("unhealthy")
    await until(lambda: "that this node is unhealthy is not known yet" in caplog.text, "the log")
    own_etcd.start()

    async def told() -> bool:
        try:
            (found,), _ = await client.list("status/member/")
        except EtcdError:
            return False
        return json.loads(found.value)["status"] == "unhealthy"

    await eventually(told, "that it is told after all", 30)
    await own.membership.close()
    await lease.end()
    await client.close()


async def test_a_member_that_has_not_announced_itself_is_known_too(
    etcd: Etcd, cluster: str
) -> None:
    # As those of the version before do.
    seen = Seen(etcd, cluster, "me-1")
    await seen.membership.start()
    lease = await Lease.begin(etcd, 5)
    await seen.membership.join(Member("invoker", "i0", "i0-1", "a"), lease)
    await until(lambda: seen.membership.is_known("invoker", "i0", "i0-1"), "the member")
    assert not seen.membership.is_known("invoker", "i0", "i0-2")
    await lease.end()
    await seen.membership.close()


@pytest.mark.parametrize(
    "value",
    [
        b"no json",
        b"[]",
        b"{}",
        json.dumps({"role": "x", "name": "i0", "instance": "1", "address": "a"}).encode(),
        json.dumps({"role": "invoker", "name": "i1", "instance": "1", "address": "a"}).encode(),
    ],
)
async def test_a_key_that_is_no_member_is_logged_and_left_out(
    etcd: Etcd, cluster: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(etcd, cluster, "me-1")
    await etcd.put(f"{cluster}/member/invoker/i0", value)
    with caplog.at_level(logging.ERROR):
        await seen.membership.start()
    assert seen.membership.members("invoker") == []
    assert "the member invoker/i0 is none" in caplog.text
    await etcd.delete(f"{cluster}/member/invoker/i0")
    await etcd.put(f"{cluster}/member/invoker/i1", b"{}")
    await seen.membership.close()


async def test_what_a_later_version_adds_to_a_member_is_ignored(etcd: Etcd, cluster: str) -> None:
    seen = Seen(etcd, cluster, "me-1")
    value = {"role": "invoker", "name": "i0", "instance": "1", "address": "a", "tags": ["gpu"]}
    await etcd.put(f"{cluster}/member/invoker/i0", json.dumps(value).encode())
    await seen.membership.start()
    assert [member.instance for member in seen.membership.members("invoker")] == ["1"]
    await seen.membership.close()


def test_without_the_program_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EtcdMissing, match="install the package etcd-server"):
        EtcdProcess(tmp_path).start()


class Wire:
    """What lies between a client and etcd; what goes over a connection that is ``mute`` is lost."""

    def __init__(self, endpoint: str) -> None:
        self._host, self._port = endpoint.rsplit(":", 1)
        self.writers: list[asyncio.StreamWriter] = []
        self.mute: list[asyncio.StreamWriter] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self.writers.append(writer)
        self.open += 1
        there = asyncio.ensure_future(self._pump(reader, far_writer, writer))
        await self._pump(far_reader, writer, writer)
        await there
        self.open -= 1

    async def _pump(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, of: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if of not in self.mute:
                    to.write(data)
        to.close()


async def test_a_connection_that_answers_no_more_is_given_up_for_a_new_one(
    etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(etcd_endpoint)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    client = Etcd(EtcdConfig((f"127.0.0.1:{server.sockets[0].getsockname()[1]}",)))
    assert (await client.list("nothing-there"))[0] == []
    wire.mute += wire.writers
    monkeypatch.setattr(etcd_module, "CALL_S", 0.5)
    with pytest.raises(EtcdError, match="no answer within"):
        await client.list("x")
    monkeypatch.setattr(etcd_module, "CALL_S", 20.0)
    assert (await client.list("nothing-there"))[0] == []
    assert len(wire.writers) > len(wire.mute)
    await client.close()
    server.close()
    await until(lambda: not wire.open, "the end of the connections")


async def test_a_lease_that_others_have_seen_end_is_not_asked_for_any_more(
    etcd_endpoint: str,
) -> None:
    client = Etcd(EtcdConfig((etcd_endpoint,)))
    lease = await Lease.begin(client, 10)
    lease.lose()
    lease.lose()  # several of them say so
    assert lease.lost.done()
    assert not lease.is_valid()
    await lease.end()
    assert await client.keep_alive(lease.id) > 0, "it was not revoked: there is none"
    await client.revoke(lease.id)
    await client.close()
