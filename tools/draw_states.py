"""Draw docs/states.md and docs/states.svg from the table of moves in ``acs_core.queue_states``.

    python tools/draw_states.py          # rewrites both

A test compares the files with what this would write.  Places of boxes and arrows are fixed, so a
move that has no arrow yet is an error that names it.
"""

from __future__ import annotations

from pathlib import Path

from acs_core.queue_states import TRANSITIONS, QueueState, Signal

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """# The life of a queue

Drawn from `TRANSITIONS` in `src/acs_core/queue_states.py` by `tools/draw_states.py`; do not edit.
A signal that a row does not name is illegal there and changes nothing.  Every state leads to
REMOVED, and every throttle has a move that lifts it (Q3 and L3 of [invariants](invariants.md)).

![The states of a queue and the signals that move it; the table says the same](states.svg)

An arrow that begins at a frame stands for one from each state in it."""

_S = QueueState

MEANINGS = {
    _S.UNINITIALIZED: "opened; not every invoker has told yet what it holds",
    _S.RUNNING: "takes arrivals, serves them, adds containers as demand says",
    _S.IDLE: "no work and no containers for a while",
    _S.FLUSHING: "its containers cannot be created; tried again ever more rarely",
    _S.NAMESPACE_THROTTLED: "the namespace's cap binds; served by what there is",
    _S.ACTION_THROTTLED: "the backlog is full; arrivals are refused",
    _S.REMOVING: "closing; drains, takes no arrivals",
    _S.REMOVED: "gone",
}


def page() -> str:
    """Return docs/states.md."""
    lines = [HEAD, "", "| state | meaning | moves | stays on |", "|---|---|---|---|"]
    for state, moves in TRANSITIONS.items():
        goes = [f"{s.name} → {t.name}" for s, t in moves.items() if t is not state]
        stays = _stays_on(state)
        lines.append(
            f"| {state.name} | {MEANINGS[state]} | {', '.join(goes) or 'none'} "
            f"| {', '.join(stays) or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def _stays_on(state: QueueState) -> list[str]:
    return [signal.name for signal, target in TRANSITIONS[state].items() if target is state]


# --- the picture -----------------------------------------------------------------------------

WIDTH, HEIGHT = 1160, 780
BOX_WIDTH, BOX_HEIGHT = 260, 60

# The middle of each box, and its colours: fill, edge.
_BLUE, _GREEN, _AMBER = ("#e3eefb", "#2f6fb5"), ("#e2f3e6", "#2e8b4b"), ("#fdf0d5", "#b9770e")
_RED, _GREY = ("#fbe4e1", "#b5402f"), ("#eceef1", "#5b6470")
BOXES: dict[QueueState, tuple[int, int, tuple[str, str]]] = {
    _S.UNINITIALIZED: (180, 130, _BLUE),
    _S.RUNNING: (570, 130, _GREEN),
    _S.IDLE: (960, 130, _BLUE),
    _S.NAMESPACE_THROTTLED: (180, 370, _AMBER),
    _S.FLUSHING: (570, 370, _RED),
    _S.ACTION_THROTTLED: (960, 370, _AMBER),
    _S.REMOVING: (270, 570, _GREY),
    _S.REMOVED: (570, 720, _GREY),
}

# One arrow from a frame stands for the signal's move from every state in it: the frame's name,
# corners, signal, target, arrow, and the place of its label.
_OPEN = (
    *(_S.UNINITIALIZED, _S.RUNNING, _S.IDLE),
    *(_S.NAMESPACE_THROTTLED, _S.FLUSHING, _S.ACTION_THROTTLED),
)
_Frame = tuple[tuple[QueueState, ...], str, tuple[int, int, int, int], Signal, QueueState, str, str]
FRAMES: list[_Frame] = [
    (
        (*_OPEN, _S.REMOVING),
        "open or closing",
        (20, 50, 1140, 640),
        Signal.SUPERSEDED,
        _S.REMOVED,
        "M500,640 V690",
        "492,672 end",
    ),
    (
        _OPEN,
        "open",
        (34, 78, 1126, 480),
        Signal.CLOSE_REQUESTED,
        _S.REMOVING,
        "M270,480 V540",
        "262,516 end",
    ),
]

# The other moves: the arrow as an SVG path, and where its label is.
ROUTES: dict[tuple[QueueState, QueueState], tuple[str, str]] = {
    (_S.UNINITIALIZED, _S.RUNNING): ("M310,130 H440", "375,122 middle"),
    (_S.RUNNING, _S.IDLE): ("M700,120 H830", "765,112 middle"),
    (_S.IDLE, _S.RUNNING): ("M830,142 H700", "765,159 middle"),
    (_S.RUNNING, _S.NAMESPACE_THROTTLED): ("M460,160 L170,340", "306,246 end"),
    (_S.NAMESPACE_THROTTLED, _S.RUNNING): ("M240,340 L510,160", "394,252 start"),
    (_S.RUNNING, _S.ACTION_THROTTLED): ("M680,160 L970,340", "834,246 start"),
    (_S.ACTION_THROTTLED, _S.RUNNING): ("M900,340 L630,160", "746,252 end"),
    (_S.RUNNING, _S.FLUSHING): ("M554,160 V340", "546,306 end"),
    (_S.FLUSHING, _S.RUNNING): ("M586,340 V160", "594,306 start"),
    (_S.NAMESPACE_THROTTLED, _S.FLUSHING): ("M310,370 H440", "375,362 middle"),
    (_S.ACTION_THROTTLED, _S.FLUSHING): ("M830,370 H700", "765,362 middle"),
    (_S.NAMESPACE_THROTTLED, _S.ACTION_THROTTLED): (
        "M180,400 V434 Q180,444 190,444 H950 Q960,444 960,434 V400",
        "375,436 middle",
    ),
    (_S.FLUSHING, _S.REMOVED): ("M660,400 V690", "668,572 start"),
    (_S.IDLE, _S.REMOVED): (
        "M1090,130 H1096 Q1106,130 1106,140 V710 Q1106,720 1096,720 H700",
        "1098,572 end",
    ),
    (_S.REMOVING, _S.REMOVED): ("M270,600 V710 Q270,720 280,720 H440", "262,672 end"),
}

STYLE = """
    text { font-family: "DejaVu Sans", Verdana, Geneva, sans-serif; fill: #1c2733; }
    .name { font-size: 15px; font-weight: bold; text-anchor: middle; }
    .stays { font-size: 9.5px; fill: #55606c; text-anchor: middle; }
    .signal { font-size: 11.5px; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
    .frame { font-size: 12px; font-style: italic; fill: #55606c; }
    .end { text-anchor: end; } .middle { text-anchor: middle; }
    path { fill: none; stroke: #44505c; stroke-width: 1.5px; }
    path.all { stroke-width: 2.5px; }
    rect.frame { fill: none; stroke: #9aa5b1; stroke-width: 1.5px; stroke-dasharray: 7 5; }"""


def picture() -> str:
    """Return docs/states.svg.

    Raises: ValueError for a move without an arrow, or an arrow without its move.
    """
    arrows = _arrows()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        "  <title>The life of a queue</title>",
        "  <!-- Drawn by tools/draw_states.py; do not edit. -->",
        f"  <style>{STYLE}",
        "  </style>",
        '  <defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
        '<polygon points="0,0.5 10,5 0,9.5" fill="#44505c"/></marker></defs>',
        f'  <rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
    ]
    for _, name, (left, top, right, bottom), *_ in FRAMES:
        lines.append(
            f'  <rect class="frame" x="{left}" y="{top}" width="{right - left}" '
            f'height="{bottom - top}" rx="14"/>'
        )
        lines.append(f'  <text class="frame" x="{left + 14}" y="{bottom - 10}">{name}</text>')
    lines.append('  <circle cx="180" cy="26" r="8" fill="#1c2733"/>')
    lines.append('  <path d="M180,34 V100" marker-end="url(#tip)"/>')
    for signals, path, label, kind in arrows:
        lines.append(f'  <path{kind} d="{path}" marker-end="url(#tip)"/>')
        at, _, anchor = label.partition(" ")
        x, _, y = at.partition(",")
        lines.append(f'  <text class="signal {anchor}" x="{x}" y="{y}">{", ".join(signals)}</text>')
    for state in TRANSITIONS:
        lines += _box(state)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arrows() -> list[tuple[list[str], str, str, str]]:
    """Return (signals, path, label, class) of each arrow; together they are the table."""
    moves: dict[tuple[QueueState, QueueState], list[str]] = {}
    for state, row in TRANSITIONS.items():
        for signal, target in row.items():
            if target is not state:
                moves.setdefault((state, target), []).append(signal.name)
    arrows = []
    for members, _, _, signal, target, path, label in FRAMES:
        for state in members:
            if signal.name not in moves.get((state, target), []):
                raise ValueError(f"{state.name} does not move to {target.name} on {signal.name}")
            moves[state, target].remove(signal.name)
        arrows.append(([signal.name], path, label, ' class="all"'))
    moves = {ends: signals for ends, signals in moves.items() if signals}
    for state, target in moves.keys() ^ ROUTES.keys():
        raise ValueError(f"ROUTES and the table disagree on {state.name} to {target.name}")
    return arrows + [(signals, *ROUTES[ends], "") for ends, signals in moves.items()]


def _box(state: QueueState) -> list[str]:
    x, y, (fill, edge) = BOXES[state]
    stays = _stays_on(state)
    box = (
        f'  <rect x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="10" fill="{fill}" stroke="{edge}" stroke-width="2"/>'
    )
    rows = [", ".join(stays[index : index + 2]) for index in range(0, len(stays), 2)]
    y += 5 - 7 * len(rows)
    lines = [box, f'  <text class="name" x="{x}" y="{y}">{state.name}</text>']
    for number, row in enumerate(rows):
        text = row if number else f"stays on {row}"
        lines.append(f'  <text class="stays" x="{x}" y="{y + 16 + 13 * number}">{text}</text>')
    return lines


FILES = {DOCS / "states.md": page, DOCS / "states.svg": picture}

if __name__ == "__main__":
    for path, draw in FILES.items():
        path.write_text(draw())
