"""The scenarios of ``tests/scenarios``: commands, ``----``, and everything that follows from them.

``pytest --rewrite`` writes what does follow into the files; read the difference before you
keep it.  Commands, one a line (``#`` begins a comment, times are 5ms, 2s, 1m):

  world invokers=i1:1024,i2:512 [waiting_max=N] [keep_alive=T] [creation=T] [run=T] [latency=T] …
  world … [pause_grace=T]                                  without it nothing is paused
  open QUEUE [memory=MB] [concurrency=N] [timeout=T] [limit=N]   QUEUE is namespace/action
  arrive QUEUE ID… [run=T] [outcome=NAME] [deadline=T]     a1..a9 stands for nine of them
  cancel ID · close QUEUE WHY… · lose QUEUE NODE · cap NAMESPACE N · deny [WHY…]
  engine INVOKER up|down|no image|no pause · break INVOKER CONTAINER · cut INVOKER · join INVOKER
  pull CONTAINER epoch=N free=N [ended=ID]                 a message that no pool sends by itself
  drain INVOKER · latency T · advance T · quiet T (until nothing is due, at most so long)
  show QUEUE · counts · count WORD                          lines of the trace that have the word
  mute / unmute                                             what follows is not / is printed
"""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import SchedulerPair, Times

from acs_core import events as ev
from acs_core.scheduler import SchedulerConfig

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))
UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000}
CUT = "----"


def time_us(text: str) -> int:
    number = text.rstrip("ums")
    return int(float(number) * UNITS_US[text[len(number) :]])


def names_of(words: list[str]) -> list[str]:
    """Expand a1..a9."""
    names = []
    for word in words:
        first, dots, last = word.partition("..")
        if dots:
            letters = first.rstrip("0123456789")
            low, high = int(first[len(letters) :]), int(last[len(letters) :])
            names += [f"{letters}{number}" for number in range(low, high + 1)]
        else:
            names.append(word)
    return names


class Player:
    """Plays the commands of one scenario."""

    def __init__(self) -> None:
        self.pair = SchedulerPair({"i1": 1024})
        self.muted = False

    def play(self, command: str) -> list[str]:
        """Carry out one command; return what there is to see of it."""
        seen = len(self.pair.trace)
        verb, *rest = command.split()
        words = [word for word in rest if "=" not in word]
        options = dict([word.split("=", 1) for word in rest if "=" in word])
        if verb == "world":
            seen = 0
        printed = getattr(self, f"do_{verb}")(words, options)
        if verb not in ("show", "counts", "count", "mute", "unmute", "world"):
            self.pair.advance(0)
        return list(printed or []) + ([] if self.muted else self.pair.trace[seen:])

    def do_world(self, words: list[str], options: dict[str, str]) -> None:
        invokers = {
            name: int(mb)
            for name, mb in [i.split(":") for i in options.pop("invokers", "i1:1024").split(",")]
        }
        keep_alive_us = time_us(options.pop("keep_alive", "10s"))
        pause_grace_us = time_us(options.pop("pause_grace", "0s"))
        times = {f.removesuffix("_us") for f in Times.__dataclass_fields__}
        chosen = {f"{k}_us": time_us(v) for k, v in options.items() if k in times}
        config = {k: int(v) for k, v in options.items() if k not in times}
        self.pair = SchedulerPair(
            invokers,
            config=SchedulerConfig(name="c", **config),  # type: ignore[arg-type]
            keep_alive_us=keep_alive_us,
            pause_grace_us=pause_grace_us,
            times=Times(**chosen),
        )

    def do_open(self, words: list[str], options: dict[str, str]) -> None:
        (queue,) = words
        namespace, action = queue.split("/")
        limit = options.get("limit")
        self.pair.open(
            ev.QueueSpec(
                queue,
                namespace,
                action,
                0,
                memory_mb=int(options.get("memory", "256")),
                concurrency=int(options.get("concurrency", "1")),
                timeout_us=time_us(options.get("timeout", "60s")),
                action_limit=None if limit is None else int(limit),
            )
        )

    def do_arrive(self, words: list[str], options: dict[str, str]) -> None:
        queue, *ids = words
        deadline_us = 0
        if "deadline" in options:
            deadline_us = self.pair.now_us + time_us(options["deadline"])
        for name in names_of(ids):
            if "run" in options:
                self.pair.run_us[name] = time_us(options["run"])
            if "outcome" in options:
                self.pair.outcomes[name] = ev.Outcome[options["outcome"]]
            self.pair.arrive(queue, name, deadline_us=deadline_us)

    def do_cancel(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.tell(ev.Cancelled(words[0]))

    def do_close(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.tell(ev.QueueClosing(words[0], " ".join(words[1:])))

    def do_lose(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.tell(ev.LeadershipLost(*words))

    def do_cap(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.cap(words[0], int(words[1]))

    def do_deny(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.denial = " ".join(words)

    def do_engine(self, words: list[str], options: dict[str, str]) -> None:
        fault = " ".join(words[1:])
        self.pair.engines[words[0]].fault = "" if fault == "up" else fault

    def do_break(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.break_sandbox(*words)

    def do_cut(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.cut_off(words[0])

    def do_join(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.join(words[0])

    def do_pull(self, words: list[str], options: dict[str, str]) -> None:
        ended = [ev.Completion(options["ended"], 0, 0, 0)] if "ended" in options else []
        self.pair.tell(
            ev.Pulled(words[0], int(options["epoch"]), int(options["free"]), (), tuple(ended))
        )

    def do_drain(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.tell_pool(words[0], ev.DrainRequested())

    def do_latency(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.times.latency_us = time_us(words[0])

    def do_advance(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.advance(time_us(words[0]))

    def do_quiet(self, words: list[str], options: dict[str, str]) -> None:
        self.pair.run_until_quiet(time_us(words[0]))

    def do_mute(self, words: list[str], options: dict[str, str]) -> None:
        self.muted = True

    def do_unmute(self, words: list[str], options: dict[str, str]) -> None:
        self.muted = False

    def do_show(self, words: list[str], options: dict[str, str]) -> list[str]:
        if not self.pair.scheduler.has_queue(words[0]):
            return [f"{words[0]} is not open"]
        shown = self.pair.scheduler.explain(words[0])
        numbers = ("waiting", "running", "serving", "in_progress", "leaving")
        return [
            f"{shown['state']} " + " ".join([f"{key} {shown[key]}" for key in numbers]),
            f"trouble: {shown['trouble'] or 'none'}{'; no room' if shown['no_room'] else ''}",
        ]

    def do_counts(self, words: list[str], options: dict[str, str]) -> list[str]:
        return [" ".join([f"{k} {v}" for k, v in self.pair.scheduler.counts().items()])]

    def do_count(self, words: list[str], options: dict[str, str]) -> list[str]:
        word = " ".join(words)
        return [f"{sum([word in line for line in self.pair.trace])} x {word}"]


def played(text: str) -> str:
    """Return the text of a scenario with what really follows from its commands."""
    player = Player()
    blocks = []
    for block in text.strip().split("\n\n"):
        commands = block.split(f"\n{CUT}")[0].splitlines()
        output: list[str] = []
        for line in commands:
            command = line.partition("#")[0].strip()
            if command:
                output += player.play(command)
        blocks.append("\n".join([*commands, CUT, *output]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    found = played(text)
    if request.config.getoption("--rewrite"):
        path.write_text(found)
    else:
        assert found == text


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 12
