"""Runs functions in threads: a queue for each function, and worker threads that pull from it.

The pool of the standard library has one queue, so that whatever is slow holds up all the rest.
Here the scheduler decides how many workers each function has, and ``ContainerPool`` how long one
that idles is kept.  A job may call another one and wait for it: where that would wait for ever,
because callers hold every worker, the call is refused at once.

The two cores speak to each other: what one asks for and is an event, the other is told.  All the
rest is for this embedder to do.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from acs_core import Scheduler, SchedulerConfig
from acs_core import effects as ask
from acs_core import events as tell
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.limits import TIME_MAX_US

THREAD_START_US = 200
"""A thread is up so fast; the scheduler weighs it against waiting for those there are."""


class Rejected(Exception):
    """The job ended without a run; says why."""


class Job:
    """One call of a function; ``chain`` has the ids of those that wait for it, and its own."""

    def __init__(self, arguments: tuple[Any, ...], chain: tuple[str, ...]) -> None:
        self.arguments = arguments
        self.chain = chain
        self.future: Future[Any] = Future()


class ThreadPool:
    """Runs jobs of the given functions in at most ``workers_max`` threads.

    ``reserve`` of the workers are for calls from inside jobs: so deep they may go, whatever else
    runs.  A worker that idles for ``keep_alive_s`` ends.
    """

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        workers_max: int,
        reserve: int = 0,
        keep_alive_s: float = 1.0,
    ) -> None:
        if workers_max < 1:
            raise ValueError(f"workers_max is {workers_max}; it must be at least 1")
        self.functions = functions
        self.started: list[str] = []  # the function of every worker that there was
        self._jobs: dict[str, Job] = {}
        self._inboxes: dict[str, SimpleQueue[str | None]] = {}
        self._here = threading.local()  # in a worker: the chain of the job that it runs
        self._serial = itertools.count(1)
        # Told by the clock: the callbacks of a future may do anything, but not amid a step.
        self._refused: list[tuple[Job, Rejected]] = []
        self._closing = False
        # Who holds it may use the two cores and all of the above; notified after each step.
        self._turn = threading.Condition()
        self._scheduler = Scheduler(
            SchedulerConfig(
                name="threads", namespace_containers_max=workers_max, namespace_reserve=reserve
            )
        )
        keep_alive_us = int(keep_alive_s * 1_000_000)
        self._pool = ContainerPool(PoolConfig("here", workers_max, keep_alive_us))  # 1 MB a worker
        report = tell.InvokerReported("here", workers_max, creation_us=THREAD_START_US)
        self._tell(self._scheduler, report)
        self._clock = threading.Thread(target=self._keep_time, name="clock", daemon=True)
        self._clock.start()

    def submit(self, function: str, *arguments: Any) -> Future[Any]:
        """Have a job run; its future has what it returned or raised, or Rejected.

        Raises: KeyError for an unknown function; RuntimeError once the pool was closed.
        """
        return self._submit(function, Job(arguments, (self._new_id(),)))

    def call(self, function: str, *arguments: Any) -> Any:
        """Have a job run and wait for it; raises what it raises, or as ``submit``, or Rejected.

        Inside a job take this and not ``submit(...).result()``: the scheduler knows who waits.
        """
        chain = (*getattr(self._here, "chain", ()), self._new_id())
        return self._submit(function, Job(arguments, chain)).result()

    def close(self) -> None:
        """Take in no more jobs, run those that wait, and return when every worker has ended."""
        with self._turn:
            self._closing = True
            for queue in self._scheduler.queues():
                self._tell(self._scheduler, tell.QueueClosing(queue, "the pool closes"))
        self._clock.join()

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_id(self) -> str:
        return f"job-{next(self._serial)}"

    def _submit(self, function: str, job: Job) -> Future[Any]:
        self.functions[function]  # an unknown one raises before anything changed
        *causes, name = job.chain
        with self._turn:
            if self._closing:
                raise RuntimeError("the pool is closed")
            if not self._scheduler.has_queue(function):  # new, or closed after a quiet time
                spec = tell.QueueSpec(
                    function, "threads", function, revision=1, memory_mb=1, timeout_us=TIME_MAX_US
                )
                self._tell(self._scheduler, tell.QueueOpened(spec, epoch=next(self._serial)))
            self._jobs[name] = job
            work = tell.Activation(name, b"", _now_us(), causes=tuple(causes))
            self._tell(self._scheduler, tell.Arrived(function, work))
        return job.future

    def _tell(self, core: Scheduler | ContainerPool, event: tell.Event) -> None:
        """Tell one core, and both what comes of it; carry out what they ask for, in order."""
        with self._turn:
            steps = deque([(core, event)])
            while steps:
                core, event = steps.popleft()
                other = self._pool if core is self._scheduler else self._scheduler
                for effect in core.step(event, _now_us()):
                    if isinstance(effect, tell.Event):
                        steps.append((other, effect))
                    else:
                        answer = self._perform(effect)
                        if answer is not None:
                            steps.append((core, answer))
            self._turn.notify_all()

    def _perform(self, effect: object) -> tell.Event | None:
        match effect:
            case ask.Reserve():
                names = tuple(p.container for p in effect.places)
                return tell.Reserved(effect.queue, effect.serial, names)
            case ask.StartSandbox():
                inbox = self._inboxes[effect.container] = SimpleQueue()
                worker = (effect.container, effect.spec.action, inbox)
                try:
                    threading.Thread(target=self._work, args=worker).start()
                except RuntimeError as error:  # the system gives no more
                    del self._inboxes[effect.container]
                    return tell.SandboxFailed(
                        effect.container, tell.FailureClass.RECOVERABLE, str(error)
                    )
                self.started.append(effect.spec.action)
                return tell.SandboxReady(effect.container)
            case ask.Initialise():
                return tell.Initialised(effect.container, init_us=0)  # nothing to do
            case ask.Run():
                self._inboxes[effect.container].put(effect.activation.activation_id)
            case ask.Remove():
                self._inboxes[effect.container].put(None)
            case ask.Reject():
                job = self._jobs.pop(effect.activation.activation_id)
                self._refused.append((job, Rejected(effect.reason)))
        return None  # no Abort: a run has no limit, as a thread cannot be made to end

    def _work(self, container: str, function: str, inbox: SimpleQueue[str | None]) -> None:
        """Be a worker: run what is put into the inbox, until that is None."""
        while (name := inbox.get()) is not None:
            with self._turn:
                job = self._jobs.pop(name)
            self._here.chain = job.chain
            began_us = _now_us()
            outcome = _run(self.functions[function], job)
            ended = tell.RunEnded(container, name, _now_us() - began_us, outcome)
            self._tell(self._pool, ended)
        with self._turn:
            del self._inboxes[container]
            self._tell(self._pool, tell.SandboxRemoved(container))

    def _keep_time(self) -> None:
        """Be the clock: tell the cores when their time has come, and jobs that they are refused."""
        over = False
        while not over:
            with self._turn:
                while not (self._refused or self._is_over() or self._due_s() <= 0):
                    self._turn.wait(self._due_s())
                if self._due_s() <= 0:
                    self._tell(self._scheduler, tell.TimeReached())
                    self._tell(self._pool, tell.TimeReached())
                refused, self._refused = self._refused, []
                over = self._is_over()
            for job, error in refused:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)

    def _is_over(self) -> bool:
        return self._closing and not (self._inboxes or self._scheduler.queues())

    def _due_s(self) -> float:
        """Return in how many seconds one of the cores wants to be told the time."""
        dues_us = (self._scheduler.next_deadline_us(), self._pool.next_deadline_us())
        due_us = min([due_us for due_us in dues_us if due_us is not None], default=TIME_MAX_US)
        return min((due_us - _now_us()) / 1_000_000, threading.TIMEOUT_MAX)


def _run(function: Callable[..., Any], job: Job) -> tell.Outcome:
    if not job.future.set_running_or_notify_cancel():
        return tell.Outcome.SUCCESS  # cancelled while it waited
    try:
        value = function(*job.arguments)
    except BaseException as error:  # whatever it is, it belongs to who waits for the result
        job.future.set_exception(error)
        return tell.Outcome.APPLICATION_ERROR
    job.future.set_result(value)
    return tell.Outcome.SUCCESS


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


def main() -> None:
    def fetch(number: int) -> int:
        time.sleep(0.02)  # a network
        return number

    def double(number: int) -> int:
        fetched: int = pool.call("fetch", number)  # waits for another job, in a worker itself
        return 2 * fetched

    with ThreadPool({"fetch": fetch, "double": double}, workers_max=8, reserve=1) as pool:
        results = [pool.submit("double", number) for number in range(50)]
        total = sum([result.result() for result in results])
    counts = {name: pool.started.count(name) for name in pool.functions}
    print(f"the sum is {total}; workers: {counts}")


if __name__ == "__main__":
    main()
