"""Plays an OpenWhisk image: our python proxy behind TCP 8080, its output that of the container."""

import socket
import sys

sys.path.insert(0, "/opt/acs")

import proxy  # type: ignore[import-not-found]

sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
action = proxy.Proxy(1, 2)
listener = socket.create_server(("0.0.0.0", 8080))
while True:
    connection, _ = listener.accept()
    with connection:
        proxy.serve(connection.fileno(), action)
