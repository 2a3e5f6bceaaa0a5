"""What is said to an action proxy, and what its answers mean.  Pure.

Source: the OpenWhisk runtime protocol (``/init`` once, then ``/run``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from acs_core.events import Outcome

from .entity_types import Action

RESULT_BYTES_MAX: Final = 1024 * 1024

SUCCESS: Final = int(Outcome.SUCCESS)
APPLICATION_ERROR: Final = int(Outcome.APPLICATION_ERROR)
DEVELOPER_ERROR: Final = int(Outcome.DEVELOPER_ERROR)
PLATFORM_ERROR: Final = int(Outcome.PLATFORM_ERROR)

STATUS_TEXTS: Final = (
    b"success",
    b"application error",
    b"action developer error",
    b"whisk internal error",
)


# Text between quotes has its own quotes escaped, so this occurs nowhere after itself.
_LAST_KEY: Final = b'"transaction_id":'
_ACTIVATION_ID: Final = b'"activation_id":"'
_API_KEY: Final = b'"api_key":"'


@dataclass(frozen=True, slots=True)
class Response:
    """What a run came to: an Outcome, and the JSON of its result."""

    outcome: int
    result: bytes


def init_body(
    action: Action,
    invoking_namespace: str,
    activation_id: str,
    transaction_id: str,
    deadline_ms: int,
    api_key: str = "",
) -> bytes:
    """Return the body of ``/init`` on behalf of an activation; it may have a key to call with."""
    environment = {
        "__OW_NAMESPACE": invoking_namespace,
        "__OW_ACTION_NAME": f"/{action.full_namespace}/{action.name}",
        "__OW_ACTION_VERSION": action.version,
        "__OW_ACTIVATION_ID": activation_id,
        "__OW_TRANSACTION_ID": transaction_id,
        "__OW_DEADLINE": str(deadline_ms),
    }
    if api_key:
        environment["__OW_API_KEY"] = api_key
    for parameter in action.parameters:
        if parameter.init:
            environment[parameter.key] = _as_text(parameter.value)
    value: dict[str, Any] = {
        "name": action.name,
        "main": action.exec.main or "main",
        "binary": action.exec.binary,
        "env": environment,
    }
    if action.exec.code is not None:
        value["code"] = action.exec.code
    return orjson.dumps({"value": value})


class RunTemplate:
    """The parts of ``/run`` that are the same for every run of an action in a namespace."""

    def __init__(self, action: Action, invoking_namespace: str) -> None:
        name = f"/{action.full_namespace}/{action.name}"
        known = orjson.dumps(
            {
                "namespace": invoking_namespace,
                "action_name": name,
                "action_version": action.version,
            }
        )
        self._middle = b"," + known[1:-1] + b"," + _ACTIVATION_ID

    def payload(
        self, value: bytes, activation_id: str, transaction_id: bytes, api_key: str = ""
    ) -> bytes:
        """Return the body of ``/run`` without its end, which ``run_body`` adds.

        ``value`` is the JSON of the arguments; ``transaction_id`` is JSON text without quotes.
        """
        return b'{"value":%b%b%b",%b%b"%b"' % (
            value,
            self._middle,
            activation_id.encode(),
            b'%b%b",' % (_API_KEY, api_key.encode()) if api_key else b"",
            _LAST_KEY,
            transaction_id,
        )


def run_body(payload: bytes, deadline_ms: int) -> bytes:
    """Return the body of ``/run``: the payload with the time at which the run must be over."""
    return b'%b,"deadline":"%d"}' % (payload, deadline_ms)


def transaction_id_of(payload: bytes) -> str:
    """Return the transaction id that ``RunTemplate.payload`` put last."""
    return str(orjson.loads(payload[payload.rindex(_LAST_KEY) + len(_LAST_KEY) :]))


def api_key_of(payload: bytes) -> str:
    """Return the key that ``RunTemplate.payload`` put in; empty if there is none."""
    start = payload.rfind(_API_KEY, payload.rindex(_ACTIVATION_ID))
    if start < 0:
        return ""
    start += len(_API_KEY)
    return payload[start : payload.index(b'"', start)].decode()


def run_response(status: int, body: bytes, size: int) -> Response:
    """Say what an answer to ``/run`` means; ``body`` may be the beginning of ``size`` bytes."""
    if size > RESULT_BYTES_MAX:
        return _oversize(APPLICATION_ERROR, size)
    result = _parse(body)
    if status == 200 and isinstance(result, (dict, list)):
        failed = isinstance(result, dict) and "error" in result
        return Response(APPLICATION_ERROR if failed else SUCCESS, body)
    if isinstance(result, dict) and "error" in result:
        return failure(DEVELOPER_ERROR, result["error"])
    return failure(
        DEVELOPER_ERROR,
        f"The action did not produce a valid JSON or JSON Array response: {_shown(body)}",
    )


def init_response(status: int, body: bytes, size: int) -> Response | None:
    """Say what an answer to ``/init`` means: None when the container is ready."""
    if status == 200:
        return None
    if size > RESULT_BYTES_MAX:
        return _oversize(DEVELOPER_ERROR, size)
    result = _parse(body)
    if isinstance(result, dict) and "error" in result:
        return failure(DEVELOPER_ERROR, result["error"])
    return failure(DEVELOPER_ERROR, f"The action failed during initialization: {_shown(body)}")


def overlaps(body: bytes) -> bool:
    """Say whether an answer to ``/init`` promises that runs of several connections overlap."""
    answer = _parse(body)
    return isinstance(answer, dict) and answer.get("concurrent") is True


def failure(outcome: int, error: Any) -> Response:
    """Return a response whose result is ``{"error": error}``."""
    return Response(outcome, orjson.dumps({"error": error}))


def timed_out(timeout_ms: int, initialising: bool) -> Response:
    """Return the response of a run, or an initialisation, that exceeded its time limit."""
    where = " during initialization." if initialising else "."
    return failure(
        DEVELOPER_ERROR, f"The action exceeded its time limits of {timeout_ms} milliseconds{where}"
    )


def drained() -> Response:
    """Return the response of a run, or an initialisation, that its invoker did not wait for."""
    return failure(PLATFORM_ERROR, "The action was aborted: its invoker stops.")


def broke(initialising: bool, out_of_memory: bool) -> Response:
    """Return the response of a run whose container ended under it."""
    if out_of_memory:
        return failure(DEVELOPER_ERROR, "The action exhausted its memory and was aborted.")
    if initialising:
        return failure(DEVELOPER_ERROR, "The action did not initialize and exited unexpectedly.")
    return failure(
        DEVELOPER_ERROR,
        "The action did not produce a valid response and exited unexpectedly.",
    )


def _oversize(outcome: int, size: int) -> Response:
    return failure(
        outcome,
        "The action produced a response that exceeded the allowed length: "
        f"{size} > {RESULT_BYTES_MAX} bytes.",
    )


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _shown(body: bytes) -> str:
    return body[:1024].decode("utf-8", "replace")


def _as_text(value: Any) -> str:
    """Return the value of an init parameter as it stands in the environment."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return orjson.dumps(value).decode()
