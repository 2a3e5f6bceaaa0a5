"""What a scheduler node's time goes with: the number of invokers, and containers that are attached.

A real ``SchedulerNode`` whose links are simulated: what it sends is answered at once, so nothing
but the scheduler is measured.  Times are those of its thread.  The worlds take turns.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from standalone import counts, machine, parser, write_json

from acs_core.effects import Adopt, Deliver
from acs_core.events import (
    Activation,
    Adopted,
    Completion,
    Held,
    InvokerReported,
    Pulled,
    QueueSpec,
)
from acs_core.scheduler import SchedulerConfig
from acs_node import clock
from acs_node.coordination import MemoryCoordination
from acs_node.links import Submit
from acs_node.scheduler_node import SchedulerNode

MEMORY_MB = 128
RUN_US = 2_000


class Invoker:
    """The link to one: notes deliveries, and says what it holds when it is asked."""

    def __init__(self, world: World, name: str) -> None:
        self.held: list[str] = []
        self._world = world
        self._name = name

    def send(self, message: object) -> None:
        if isinstance(message, Deliver):
            self._world.delivered.append(message)
        elif isinstance(message, Adopt):
            held = tuple([Held(name, True) for name in self.held])
            answer = Adopted(self._name, message.queue, message.epoch, held)
            self._world.answers.append(answer)


class Controller:
    """The link to the controller; nothing is rejected, and nothing else matters."""

    def send(self, message: object) -> None:
        pass


class World:
    """One queue and so many containers, spread over so many invokers."""

    def __init__(self, invokers: int, containers: int) -> None:
        names = [f"i{number}" for number in range(invokers)]
        memory_mb = MEMORY_MB * (containers + 1)
        config = SchedulerConfig(name="s", namespace_containers_max=containers + 1)
        self.node = SchedulerNode(config, MemoryCoordination(dict.fromkeys(names, memory_mb)))
        self.delivered: list[Deliver] = []
        self.answers: list[Adopted] = []
        self.links = {name: Invoker(self, name) for name in names}
        self.containers = [f"c{number}" for number in range(containers)]
        for number, container in enumerate(self.containers):
            self.links[names[number % invokers]].held.append(container)
        self.node.connect(Controller(), self.links)
        for name in names:
            self.node.report_invoker(InvokerReported(name, memory_mb))
        self.spec = QueueSpec("n/a@1", "n", "a", 1, memory_mb=MEMORY_MB)
        self.made = 0

    def submit(self) -> None:
        self.made += 1
        activation = Activation(f"{self.made:032x}", b"{}", clock.now_us())
        self.node.receive(Submit(self.spec, activation))

    async def attach(self) -> float:
        """Have all containers adopted, each with its first delivery; return the ms that took."""
        for _ in self.containers:
            self.submit()
        while len(self.answers) < len(self.links):
            await asyncio.sleep(0)
        began_ns = time.thread_time_ns()
        for answer in self.answers:
            self.node.receive(answer)
        epoch = self.answers[0].epoch
        for container in self.containers:
            self.node.receive(Pulled(container, epoch, 1))
        took_ns = time.thread_time_ns() - began_ns
        assert len(self.delivered) == len(self.containers), len(self.delivered)
        return took_ns / 1e6

    async def cycle(self, activations: int) -> float:
        """Keep every container at work for so many activations; return the us of one.

        With what is due meanwhile: looks and decisions, for one activation more waits than runs.
        """
        began_ns = time.thread_time_ns()
        for _ in range(activations // len(self.containers)):
            ended, self.delivered = self.delivered, []
            for deliver in ended:
                id_ = deliver.activation.activation_id
                done = (Completion(id_, 0, RUN_US, 0),)
                self.node.receive(Pulled(deliver.container, deliver.epoch, 1, (), done))
                self.submit()
            await asyncio.sleep(0)
        rounds = activations // len(self.containers)
        return (time.thread_time_ns() - began_ns) / 1e3 / (rounds * len(self.containers))


async def measure(
    invokers: Sequence[int], containers: int, attached: int, rounds: int, activations: int
) -> dict[str, object]:
    """Return the raw numbers."""
    worlds = {count: World(count, containers) for count in invokers}
    for world in worlds.values():
        await world.attach()
        world.submit()
    cycles: dict[int, list[float]] = {count: [] for count in invokers}
    attaching: dict[int, list[float]] = {count: [] for count in invokers}
    for _ in range(rounds):
        for count, world in worlds.items():
            cycles[count].append(await world.cycle(activations))
            other = World(count, attached)
            attaching[count].append(await other.attach())
            await other.node.close()
    for world in worlds.values():
        await world.node.close()
    return {"us_per_activation": cycles, "attach_ms": attaching}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("a scheduler node's time by the number of invokers")
    options.add_argument("--invokers", type=counts, default=[1, 10, 100])
    options.add_argument("--containers", type=int, default=32)
    options.add_argument("--attached", type=int, default=200)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--activations", type=int, default=6_400)
    chosen = options.parse_args(arguments)
    found = asyncio.run(
        measure(
            chosen.invokers, chosen.containers, chosen.attached, chosen.rounds, chosen.activations
        )
    )
    cycles, attaching = found["us_per_activation"], found["attach_ms"]
    assert isinstance(cycles, dict)
    assert isinstance(attaching, dict)
    first = min(cycles[chosen.invokers[0]])
    for count in chosen.invokers:
        print(
            f"{count:4} invokers: {min(cycles[count]):.2f} us an activation at the least "
            f"({min(cycles[count]) / first:.2f} of the first), median "
            f"{statistics.median(cycles[count]):.2f}; {chosen.attached} containers attached in "
            f"{min(attaching[count]):.1f} to {max(attaching[count]):.1f} ms"
        )
    document = {"machine": machine(), "containers": chosen.containers, **found}
    write_json(chosen.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
