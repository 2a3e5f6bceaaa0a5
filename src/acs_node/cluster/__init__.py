"""The nodes of a cluster as processes of their own, and all of one on this machine.

``config`` has the settings, ``process`` what every node does from its start to its end,
``controller``, ``scheduler`` and ``invoker`` what is particular to each, ``local`` starts them all.
"""

import os
from typing import Final

_GRPC_SWITCHES: Final = "-event_engine_client,-event_engine_listener"
"""Off: gRPC's pool of threads that read sockets, beside the thread that tells the loop.  With it a
message wakes two threads more and costs a third more CPU (docs/performance.md)."""


def _load_grpc() -> None:
    """Import gRPC with the switches, which it reads then alone; a user's own are left as they are.

    They are not left behind for the processes that this one starts.
    """
    if "GRPC_EXPERIMENTS" in os.environ:
        return
    os.environ["GRPC_EXPERIMENTS"] = _GRPC_SWITCHES
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ["GRPC_EXPERIMENTS"]


_load_grpc()
