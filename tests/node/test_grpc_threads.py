"""Who reads the sockets of gRPC in a node's process."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import asyncio, os
from pathlib import Path
import acs_node.cluster
import grpc.aio

async def main():
    async def echo(requests, context):
        async for request in requests:
            await context.write(request)

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/s/m")()
        for _ in range(500):
            await call.write(b"x")
            await call.read()
        woken = 0
        for thread in Path("/proc/self/task").iterdir():
            if (thread / "comm").read_text().startswith("event_engine"):
                text = (thread / "status").read_text()
                woken += int(text.split("\\nvoluntary_ctxt_switches:")[1].split()[0])
        call.cancel()
    await server.stop(None)
    return woken

woken = asyncio.run(main())
print(woken, os.environ.get("GRPC_EXPERIMENTS", "nothing left behind"))
"""


def ran(**environment: str) -> tuple[int, str, str]:
    """Return how often gRPC's pool was woken in 500 round trips, the setting, and the log."""
    kept = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    woken, _, left = done.stdout.strip().partition(" ")
    return int(woken), left, done.stderr


def test_no_pool_of_grpc_s_stands_between_a_socket_and_the_loop() -> None:
    woken, left, log = ran()
    assert woken < 250
    assert left == "nothing left behind"
    assert "Unknown experiment" not in log, "this gRPC has no such switch any more"


def test_a_setting_of_the_user_s_stays() -> None:
    woken, left, _ = ran(GRPC_EXPERIMENTS="event_engine_client")
    assert woken > 250
    assert left == "event_engine_client"
