"""Draw docs/states.md from the table of moves in ``acs_core.queue_states``.

    python tools/draw_states.py          # rewrites docs/states.md

A test compares the file with what this would write.
"""

from __future__ import annotations

from pathlib import Path

from acs_core.queue_states import TRANSITIONS, QueueState

PATH = Path(__file__).parents[1] / "docs" / "states.md"

HEAD = """# The life of a queue

Drawn from `TRANSITIONS` in `src/acs_core/queue_states.py` by `tools/draw_states.py`; do not edit.
A signal that a row does not name is illegal there and changes nothing.  Every state leads to
REMOVED, and every throttle has a move that lifts it (Q3 and L3 of [invariants](invariants.md)).
"""


def drawn() -> str:
    """Return the page."""
    arrows: dict[tuple[QueueState, QueueState], list[str]] = {}
    for state, moves in TRANSITIONS.items():
        for signal, target in moves.items():
            arrows.setdefault((state, target), []).append(signal.name)
    lines = [HEAD, "```mermaid", "stateDiagram-v2", "    [*] --> UNINITIALIZED"]
    for (state, target), signals in arrows.items():
        if state is not target:
            lines.append(f"    {state.name} --> {target.name}: {', '.join(signals)}")
    lines += [
        "    REMOVED --> [*]",
        "```",
        "",
        "| state | meaning | moves | stays on |",
        "|---|---|---|---|",
    ]
    for state, moves in TRANSITIONS.items():
        goes = [f"{s.name} → {t.name}" for s, t in moves.items() if t is not state]
        stays = [s.name for s, t in moves.items() if t is state]
        lines.append(
            f"| {state.name} | {MEANINGS[state]} | {', '.join(goes) or 'none'} "
            f"| {', '.join(stays) or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


MEANINGS = {
    QueueState.UNINITIALIZED: "opened; not every invoker has told yet what it holds",
    QueueState.RUNNING: "takes arrivals, serves them, adds containers as demand says",
    QueueState.IDLE: "no work and no containers for a while",
    QueueState.FLUSHING: "its containers cannot be created; tried again ever more rarely",
    QueueState.NAMESPACE_THROTTLED: "the namespace's cap binds; served by what there is",
    QueueState.ACTION_THROTTLED: "the backlog is full; arrivals are refused",
    QueueState.REMOVING: "closing; drains, takes no arrivals",
    QueueState.REMOVED: "gone",
}

if __name__ == "__main__":
    PATH.write_text(drawn())
