"""A raw connection to a server: requests as bytes, answers as they come over the wire."""

import base64
import json
import socket
from dataclasses import dataclass
from typing import Any

from acs_node.demo import ServerProcess


@dataclass
class Reply:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A raw connection to the server."""

    def __init__(self, server: ServerProcess) -> None:
        self._auth = base64.b64encode(server.auth.encode()).decode()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def request(
        self, target: str, body: bytes = b"{}", *, method: str = "POST", version: str = "1.1",
        auth: bool = True, length: bool = True, content_type: str = "application/json",
        **headers: Any,
    ) -> bytes:  # fmt: skip
        """Return a whole request; ``target`` is below ``/api/v1/namespaces/``."""
        lines = [f"{method} /api/v1/namespaces/{target} HTTP/{version}", "Host: test"]
        if auth:
            lines.append(f"Authorization: Basic {self._auth}")
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if length:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def reply(self) -> Reply:
        """Read one answer."""
        status_line = self._file.readline()
        assert status_line.startswith(b"HTTP/1.1 "), status_line
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        return Reply(int(status_line.split()[1]), headers, body)

    def ended(self) -> bool:
        """Tell whether the server has closed the connection and sent nothing more."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True
