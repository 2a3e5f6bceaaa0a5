"""What a server says of itself to everybody: limits, runtimes, invokers, what is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from .action_schema import MIB, SEQUENCE_ACTIONS_MAX, RuntimeKinds, SystemLimits
from .responses import json_response

__all__ = ["UNLIMITED", "Info"]

UNLIMITED: Final = 2_147_483_647
"""Told to clients, which expect a number, where there is no limit."""


def number(limit: int | None) -> int:
    """Return a limit as clients can read it."""
    return UNLIMITED if limit is None else limit


class Info:
    """Handlers of the routes below the server's root, which need no key.

    ``invokers`` returns their states by name (``up``, ``down`` …), ``pending`` how many
    activations have not ended.
    """

    def __init__(
        self,
        limits: SystemLimits,
        kinds: RuntimeKinds,
        invokers: Callable[[], Mapping[str, str]],
        pending: Callable[[], int],
    ) -> None:
        self._limits = limits
        self._kinds = kinds
        self._invokers = invokers
        self._pending = pending

    def root(self) -> Response:
        return json_response(
            {
                "description": "OpenWhisk",
                "support": {"github": "", "slack": ""},
                "api_paths": ["/api/v1"],
                "limits": _limits(self._limits),
                "runtimes": _runtimes(self._kinds),
            }
        )

    def invokers(self) -> Response:
        return json_response(dict(self._invokers()))

    def healthy_count(self) -> Response:
        return json_response(self._healthy()[0])

    def ready(self) -> Response:
        healthy, all_of_them = self._healthy()
        share = f"{healthy}/{all_of_them}"
        if healthy == 0 or healthy < all_of_them:
            return json_response({"unhealthy": share}, 500)
        return json_response({"healthy": share})

    def pending_count(self) -> Response:
        return json_response(self._pending())

    def _healthy(self) -> tuple[int, int]:
        states = list(self._invokers().values())
        return states.count("up"), len(states)


def _limits(limits: SystemLimits) -> dict[str, int]:
    """Return the limits in the form of ``/``: bytes and ms, each with its default and bounds."""
    document = {
        "actions_per_minute": number(limits.invocations_per_minute),
        "triggers_per_minute": number(limits.fires_per_minute),
        "concurrent_actions": number(limits.concurrent_invocations),
        "sequence_length": SEQUENCE_ACTIONS_MAX,
    }
    bounds = {
        "duration": (limits.timeout_ms_min, limits.timeout_ms_max),
        "memory": (limits.memory_mb_min * MIB, limits.memory_mb_max * MIB),
        "logs": (limits.logs_mb_min * MIB, limits.logs_mb_max * MIB),
    }
    for name, (least, most) in bounds.items():
        for prefix in ("", "default_"):
            document[f"{prefix}min_action_{name}"] = least
            document[f"{prefix}max_action_{name}"] = most
    return document


def _runtimes(kinds: RuntimeKinds) -> dict[str, list[dict[str, Any]]]:
    return {
        family: [
            {
                "kind": each.kind,
                "image": each.image,
                "default": each.default,
                "deprecated": each.deprecated,
                "attached": True,
                "requireMain": each.require_main,
            }
            for each in members
        ]
        for family, members in kinds.families.items()
    }
