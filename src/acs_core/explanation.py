"""The state of one queue in words and numbers, for people; nothing here decides anything.

Words are put together when somebody asks and at no other time: a decision keeps its numbers.
"""

from __future__ import annotations

from .demand import wait_behind_ms
from .forecast import Forecast
from .ledger import Ledger, QueueEntry
from .queue_states import QueueState
from .starving import Starving


def explain(
    queue: QueueEntry, ledger: Ledger, starving: Starving, now_us: int
) -> dict[str, object]:
    """Return the state of the queue; ``starving`` has the queues that found no room.

    ``predicted_wait_ms`` is that of a new arrival on the containers that there are, and
    ``least_wait_ms`` on all that the queue may ever get, as at the last forecast; None: unknown.
    ``inputs`` is the snapshot of the last decision, ``alternative`` what it did not do and why.
    Cost: O(invokers).
    """
    decision = queue.decision
    forecast = queue.forecast
    load = queue.load
    waiting = queue.line.waiting
    wait_us = forecast.wait_us(waiting) if forecast is not None else -1
    return {
        "queue": queue.spec.queue,
        "epoch": queue.epoch,
        "state": queue.life.state.name,
        "waiting": waiting,
        "running": len(queue.delivered),
        "serving": len(queue.serving),
        "in_progress": len(queue.in_progress),
        "leaving": len(queue.leaving),
        "paused": len(queue.paused),
        "reserving": len(queue.reserving),
        "containers_min": queue.spec.containers_min,
        "kept": len(queue.kept),
        "mean_run_ms": round(load.mean_us / 1000, 3) if load.samples else None,
        "arrivals_per_s": round(load.rate_per_s, 3),
        "namespace_containers": len(queue.namespace.serving) + len(queue.namespace.in_progress),
        "namespace_containers_max": queue.namespace.containers_max,
        "no_room": queue.spec.queue in starving and waiting > 0,
        "trouble": queue.cause,
        "binds": binds(queue, ledger, starving, now_us),
        "predicted_wait_ms": _predicted_ms(forecast, waiting),
        "least_wait_ms": wait_us / 1000 if wait_us >= 0 else None,
        "decided_ms_ago": (now_us - queue.decided_us) / 1000 if decision is not None else None,
        "verdict": decision.verdict.name if decision is not None else None,
        "count": decision.count if decision is not None else 0,
        "reason": decision.reason if decision is not None else "nothing was decided yet",
        "alternative": decision.rejected if decision is not None else "",
        "inputs": _numbers(decision.snapshot) if decision is not None else {},
        "shadow": queue.shadow.words() if queue.shadow is not None else None,
    }


def binds(queue: QueueEntry, ledger: Ledger, starving: Starving, now_us: int) -> str:
    """Return what keeps the queue from more, the count and the limit, and what would lift it."""
    line = queue.line
    namespace = queue.namespace
    spec = queue.spec
    state = queue.life.state_index
    own = len(queue.serving) + len(queue.in_progress)
    total = namespace.held()
    if queue.adopting:
        missing = ", ".join(sorted(queue.adopting))
        return f"invokers that have not told what they hold: {missing}; lifted by their answer"
    if state == QueueState.ACTION_THROTTLED:
        return f"{line.waiting} of {line.capacity} activations wait; lifted when fewer do"
    if now_us < queue.retry_us:
        wait_ms = (queue.retry_us - now_us) // 1000
        return f"{queue.failures} failures in a row: {queue.cause}; tried again in {wait_ms} ms"
    if spec.action_limit is not None and own >= spec.action_limit:
        return f"{own} of {spec.action_limit} containers of the action; lifted by a higher limit"
    if total >= namespace.containers_max:
        return (
            f"{total} of {namespace.containers_max} containers of namespace {spec.namespace};"
            " lifted when one of them goes or by a higher limit"
        )
    if namespace.room(line.depth()) <= 0:
        return (
            f"{total} of {namespace.containers_max} containers of namespace {spec.namespace}, of"
            f" which {namespace.spare()} are kept for calls; lifted when one of them goes, by a"
            " higher limit or a smaller reserve"
        )
    if starving.lacks_memory(spec.queue):
        free = [view.free_mb for view in ledger.views()]
        return (
            f"memory: {max(free, default=0)} of the {spec.memory_mb} MB a container needs are free"
            " on the best invoker; lifted when a container goes or an invoker comes"
        )
    return "nothing"


def _predicted_ms(forecast: Forecast | None, waiting: int) -> float | None:
    if forecast is None or forecast.snapshot.average_duration_ms is None:
        return None
    there = forecast.snapshot.existing + forecast.snapshot.in_progress
    return wait_behind_ms(forecast.snapshot, there, waiting + 1) if there > 0 else None


def _numbers(snapshot: object) -> dict[str, object]:
    return {name: getattr(snapshot, name) for name in INPUTS}


# The numbers of a snapshot, under the names of its constructor's arguments.
INPUTS = (
    "incoming",
    "waiting",
    "existing",
    "in_progress",
    "stale",
    "namespace_existing",
    "namespace_in_progress",
    "average_duration_ms",
    "namespace_limit",
    "action_limit",
    "concurrency",
    "arrivals_per_s",
    "creation_ms",
    "wait_target_ms",
    "running",
    "paused",
    "oldest_run_ms",
    "contending_queues",
    "duration_spread_ms",
    "steady_short_ms",
    "oldest_wait_ms",
    "typical_run_ms",
)
