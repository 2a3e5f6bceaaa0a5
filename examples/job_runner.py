"""Runs jobs in asyncio: a queue for each kind of job, and worker tasks that pull from it.

The scheduler decides how many workers a kind has; a worker that idles for its keep-alive leaves.
This embedder answers ``Create`` and ``Deliver`` itself; all of it runs in one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from acs_core import Scheduler, SchedulerConfig
from acs_core import effects as ask
from acs_core import events as tell

Job = Callable[[bytes], Awaitable[bytes]]
KEEP_ALIVE_S = 1.0


class Rejected(Exception):
    """The job ended without a result; says why."""


class JobRunner:
    """Runs jobs of the given kinds in at most ``workers_max`` workers.

    A job that waits for ``wait_max_s`` is rejected.
    """

    def __init__(self, kinds: dict[str, Job], workers_max: int, wait_max_s: float = 60.0) -> None:
        self.kinds = kinds
        self.workers: dict[str, asyncio.Queue[ask.Deliver | None]] = {}
        self.created: list[str] = []  # the kind of every worker that there was
        self._tasks: set[asyncio.Task[None]] = set()
        self._results: dict[str, asyncio.Future[bytes]] = {}
        self._serial = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        wait_max_us = int(wait_max_s * 1_000_000)
        self._scheduler = Scheduler(SchedulerConfig(name="runner", wait_max_us=wait_max_us))
        self._tell(tell.InvokerReported("here", memory_mb=workers_max))  # 1 MB a worker

    async def run(self, kind: str, payload: bytes) -> bytes:
        """Run a job and return its result; raises what it raises, or Rejected."""
        if not self._scheduler.has_queue(kind):  # new, or closed after a quiet time
            spec = tell.QueueSpec(kind, "runner", kind, revision=1, memory_mb=1)
            self._tell(tell.QueueOpened(spec, epoch=next(self._serial)))
        job = f"job-{next(self._serial)}"
        result = self._results[job] = asyncio.get_running_loop().create_future()
        self._tell(tell.Arrived(kind, tell.Activation(job, payload, _now_us())))
        return await result

    async def close(self) -> None:
        """Let every worker end after the jobs that wait."""
        for queue in self._scheduler.queues():
            self._tell(tell.QueueClosing(queue, "the runner closes"))
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, event: tell.Event) -> None:
        effects = self._scheduler.step(event, _now_us())
        for effect in effects:  # which become more on the way
            answer = self._perform(effect)
            if answer is not None:
                effects += self._scheduler.step(answer, _now_us())
        if self._timer is not None:
            self._timer.cancel()
        due_us = self._scheduler.next_deadline_us()
        if due_us is not None:
            delay_s = max(0, due_us - _now_us()) / 1_000_000
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._tell, tell.TimeReached())

    def _perform(self, effect: object) -> tell.Event | None:
        match effect:
            case ask.Adopt():
                return tell.Adopted("here", effect.queue, effect.epoch)
            case ask.Reserve():
                return tell.Reserved(
                    effect.queue, effect.serial, tuple(p.container for p in effect.places)
                )
            case ask.Create():
                self.created.append(effect.spec.action)
                self.workers[effect.container] = asyncio.Queue()
                task = asyncio.create_task(self._work(effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case ask.Deliver():
                self.workers[effect.container].put_nowait(effect)
            case ask.Release():
                self.workers[effect.container].put_nowait(None)
            case ask.Reject():
                job = self._results.pop(effect.activation.activation_id)
                if not job.done():
                    job.set_exception(Rejected(effect.reason))
        return None

    async def _work(self, create: ask.Create) -> None:
        name, inbox = create.container, self.workers[create.container]
        self._tell(tell.ContainerServing(name, "here"))
        self._tell(tell.Pulled(name, create.epoch, free_slots=1))
        while True:
            try:
                deliver = await asyncio.wait_for(inbox.get(), KEEP_ALIVE_S)
            except TimeoutError:
                if not inbox.empty():
                    continue  # work came in the same moment
                deliver = None
            if deliver is None:
                break
            began_us, outcome = _now_us(), tell.Outcome.SUCCESS
            job = self._results.pop(deliver.activation.activation_id)
            try:
                value = await self.kinds[create.spec.action](deliver.activation.payload)
                if not job.done():
                    job.set_result(value)
            except Exception as error:
                outcome = tell.Outcome.APPLICATION_ERROR
                if not job.done():
                    job.set_exception(error)
            done = tell.Completion(
                deliver.activation.activation_id, 0, _now_us() - began_us, outcome
            )
            self._tell(tell.Pulled(name, create.epoch, 1, completions=(done,)))
        del self.workers[name]
        self._tell(tell.ContainerGone(name, "it has no work"))


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


async def main() -> None:
    async def shout(text: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return text.upper()

    async def count(text: bytes) -> bytes:
        return b"%d" % len(text)

    runner = JobRunner({"shout": shout, "count": count}, workers_max=8)
    jobs = [runner.run(kind, b"abc") for kind in ("shout", "count") for _ in range(100)]
    results = await asyncio.gather(*jobs)
    await runner.close()
    print(f"{len(results)} results, {results[0]!r} and {results[-1]!r}; workers: all ended")


if __name__ == "__main__":
    asyncio.run(main())
