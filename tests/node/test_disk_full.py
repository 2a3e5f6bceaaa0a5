"""A full disk: what cannot be kept is refused with the cause in the log, and it goes on after."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from node.house import ECHO
from node.server import rest_client, running_server
from requirements import missing
from waiting import wait_until

ACTIONS = "namespaces/_/actions"
ACTIVATIONS = "namespaces/_/activations"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 16 MB."""
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "acs-test", folder]
        try:
            made = subprocess.run(mount, capture_output=True, text=True, timeout=30)
        except OSError as error:
            missing("tmpfs", f"there is no mount: {error}")
        if made.returncode:
            missing("tmpfs", f"a tmpfs cannot be mounted: {made.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True, timeout=30)


def fill(path: Path) -> None:
    """Write a file until the disk is full, to its last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_refuses_what_cannot_be_kept_and_loses_nothing(small_disk: Path) -> None:
    action = {"exec": {"kind": "python:3", "code": ECHO}}
    large = {"exec": {"kind": "python:3", "code": "#" * 1_000_000}}
    invoke = f"{ACTIONS}/echo?blocking=true"
    with running_server(folder=small_disk) as server, rest_client(server) as client:
        client.put(f"{ACTIONS}/echo", json=action).raise_for_status()
        ids = [client.post(invoke).json()["activationId"]]
        assert client.get(f"{ACTIVATIONS}/{ids[0]}").status_code == 200
        fill(small_disk / "filler")

        refused = client.put(f"{ACTIONS}/large", json=large)
        assert refused.status_code == 500
        assert refused.json()["error"] == "There was an internal server error."
        wait_until(lambda: "database or disk is full" in server.output, "the cause in the log")
        assert f"request {refused.json()['code']} failed" in server.output
        assert client.get(f"{ACTIONS}/large").status_code == 404
        # Whoever waits for his result gets it; its record is kept until there is room.
        ids += [client.post(invoke).json()["activationId"] for _ in range(3)]
        for activation_id in ids:
            assert client.get(f"{ACTIVATIONS}/{activation_id}").status_code == 200
        # A promise that cannot be kept is not given.
        accepted = [client.post(f"{ACTIONS}/echo", json={"n": "x" * 9_000}) for _ in range(9)]
        assert accepted[-1].status_code == 503
        wait_until(lambda: "records cannot be written and are kept" in server.output, "its cause")

        os.unlink(small_disk / "filler")
        wait_until(lambda: "records are written again" in server.output, "the recovery")
        client.put(f"{ACTIONS}/large", json=large).raise_for_status()
        later = client.post(f"{ACTIONS}/echo")
        assert later.status_code == 202
        ids += [each.json()["activationId"] for each in (*accepted, later) if each.is_success]
        assert server.stop() == 0

        server.start()
        kept = [row["activationId"] for row in client.get(f"{ACTIVATIONS}?limit=200").json()]
        assert set(ids) <= set(kept)
        assert len(kept) == len(set(kept)) == len(ids)
        assert client.get(f"{ACTIONS}/large").status_code == 200
