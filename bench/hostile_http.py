"""How much memory hostile HTTP clients make a server hold, and whether others are served meanwhile.

python bench/hostile_http.py [--connections 100] [--json FILE]

Opens that many connections of each kind, leaves them as they are for as long as the server lets
it, and prints the server's memory beside what it was before.  Exits with 1 when a connection
costs more than ``CONNECTION_BYTES_MAX``, or when a well-behaved client is not served meanwhile.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import httpx

from acs_node.demo import ServerProcess

CONNECTION_BYTES_MAX = 2 * 1024 * 1024
"""A payload of the largest size, once as it was read and once put together."""

ACTION = "/api/v1/namespaces/_/actions/echo"
POST = f"POST {ACTION}?blocking=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MIB = 1024 * 1024
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def attacks(credential: str) -> dict[str, bytes]:
    """Return what each kind of client sends, by its name."""
    start = POST.encode()
    own = start + f"Authorization: Basic {credential}\r\n".encode()
    get = f"GET {ACTION} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credential}\r\n\r\n".encode()
    body = b"Content-Length: %d\r\n\r\n" % MIB + b" " * (MIB - 1)
    return {
        "sends nothing": b"",
        "half a head of 60 KB": start + b"X: " + b"x" * 60_000,
        "250 headers, no end": start + b"a:\r\n" * 250,
        "100,000 headers": start + b"a:b\r\n" * 100_000,
        "a stranger's body, 1 MiB, no end": start + body,
        "an owner's body, 1 MiB, no end": own + body,
        "a body of 40 MiB": own + CHUNKED + (b"100000\r\n" + b" " * MIB + b"\r\n") * 40,
        "a chunk with 2 MiB of extension": own + CHUNKED + b"1;" + b"x" * 2 * MIB,
        "2 MiB of trailers": own + CHUNKED + b"0\r\n" + b"a:b\r\n" * (2 * MIB // 5),
        "a trailer of 2 MiB": own + CHUNKED + b"0\r\na:" + b"x" * 2 * MIB,
        "10,000 requests in a row, answers unread": get * 10_000,
        "no HTTP at all": b"\x16\x03\x01\x02\x00" * 10_000,
    }


def open_and_send(port: int, data: bytes) -> socket.socket:
    """Return a connection on which as much was sent as the server took within a second."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(1.0)
    with suppress(OSError):
        connection.sendall(data)
    return connection


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, without what it shares with files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no RssAnon")


def measure(server: ServerProcess, count: int, data: bytes, serve: Callable[[], float]) -> dict:
    before = resident_bytes(server.pid)
    connections = []
    peak, served = before, []
    for _ in range(count):
        connections.append(open_and_send(server.port, data))
        peak = max(peak, resident_bytes(server.pid))
    for _ in range(20):
        served.append(serve())
        peak = max(peak, resident_bytes(server.pid))
    for connection in connections:
        connection.close()
    serve()
    return {
        "before_mb": before / MIB,
        "peak_mb": peak / MIB,
        "after_mb": resident_bytes(server.pid) / MIB,
        "kb_per_connection": (peak - before) / count / 1024,
        "served_ms": median(served) * 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    results = {}
    with (
        tempfile.TemporaryDirectory(prefix="acs-") as folder,
        ServerProcess(Path(folder), "--sandbox", "process") as server,
        httpx.Client(base_url=server.url, auth=tuple(server.auth.split(":")), timeout=30) as client,
    ):
        action = {"exec": {"kind": "python:3", "code": "def main(args):\n    return args\n"}}
        client.put(ACTION, json=action).raise_for_status()

        def serve() -> float:
            start = time.perf_counter()
            client.post(f"{ACTION}?blocking=true", json={}).raise_for_status()
            return time.perf_counter() - start

        for _ in range(200):
            serve()
        print(f"{options.connections} connections of each kind; memory of the server in MB")
        print(f"{'':42}before   peak  after  KB/connection  others served in ms")
        credential = base64.b64encode(server.auth.encode()).decode()
        for name, data in attacks(credential).items():
            result = results[name] = measure(server, options.connections, data, serve)
            print(
                f"{name:42}{result['before_mb']:6.1f} {result['peak_mb']:6.1f}"
                f" {result['after_mb']:6.1f} {result['kb_per_connection']:14.1f}"
                f" {result['served_ms']:20.1f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    worst = max(result["kb_per_connection"] for result in results.values())
    return int(worst * 1024 > CONNECTION_BYTES_MAX)


if __name__ == "__main__":
    sys.exit(main())
