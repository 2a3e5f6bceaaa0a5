"""Checksums of byte strings, each kind of job in a queue of its own, driven from C-typed code.

The embedder is a plain loop: it feeds the scheduler, performs its effects, and a "container" is
no more than a name whose runs happen here and now.  What happens once for each job reads and
calls the core through its C declarations: no attribute is looked up in Python.
"""

import itertools

cimport cython
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from acs_core.effects cimport Adopt, Create, Deliver, Place, Reject, Release, Reserve
from acs_core.events cimport (
    Activation,
    Adopted,
    Arrived,
    Completion,
    ContainerGone,
    ContainerServing,
    InvokerReported,
    Pulled,
    QueueOpened,
    QueueSpec,
    Reserved,
    TimeReached,
)
from acs_core.scheduler cimport Scheduler

from acs_core import SchedulerConfig

cdef long long now_us() noexcept:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <long long>time.tv_sec * 1_000_000 + time.tv_nsec // 1_000


cdef unsigned int adler32(bytes data) noexcept:
    cdef unsigned int low = 1, high = 0
    cdef unsigned char byte
    for byte in data:
        low = (low + byte) % 65521
        high = (high + low) % 65521
    return high << 16 | low


@cython.final
cdef class Driver:
    """Runs jobs; ``sums`` maps the id of each that has ended to its checksum."""

    cdef Scheduler scheduler
    cdef object epochs
    cdef readonly dict sums
    cdef readonly dict refused
    cdef readonly int containers

    def __init__(self, int containers_max):
        self.scheduler = Scheduler(SchedulerConfig(name="driver"))
        self.epochs = itertools.count(1)
        self.sums = {}
        self.refused = {}
        self.containers = 0
        # Memory is what bounds containers: each takes 1 MB of these.
        self.drive(InvokerReported("here", containers_max))

    def open(self, str kind):
        """Open the queue of a kind of job."""
        spec = QueueSpec(kind, "example", kind, 1, memory_mb=1)
        self.drive(QueueOpened(spec, next(self.epochs)))

    cpdef submit(self, str kind, str job, bytes data):
        """Run the job, or put it in line; costs no attribute access in Python."""
        self.drive(Arrived(kind, Activation(job, data, now_us())))

    cpdef tick(self):
        """Do what is due; call it no later than ``due_us()``."""
        self.drive(TimeReached())

    def due_us(self):
        """Return when ``tick`` is wanted, in microseconds of the monotonic clock, or None."""
        return self.scheduler.next_deadline_us()

    cdef drive(self, object event):
        """Step, and carry out what follows, in order, until nothing does."""
        cdef list effects = self.scheduler.step(event, now_us())
        cdef object effect
        cdef Py_ssize_t done = 0
        while done < len(effects):
            effect = effects[done]
            done += 1
            event = self.perform(effect)
            if event is not None:
                effects.extend(self.scheduler.step(event, now_us()))
            if isinstance(effect, Create):  # it is up, and offers its slot
                event = Pulled((<Create>effect).container, (<Create>effect).epoch, 1)
                effects.extend(self.scheduler.step(event, now_us()))

    cdef object perform(self, object effect):
        """Carry out one effect; return the event that answers it, or None."""
        cdef Activation job
        cdef long long started_us
        if isinstance(effect, Deliver):
            job = (<Deliver>effect).activation
            started_us = now_us()
            self.sums[job.activation_id] = adler32(job.payload)
            done = Completion(job.activation_id, 0, now_us() - started_us, 0)
            return Pulled((<Deliver>effect).container, (<Deliver>effect).epoch, 1, (), (done,))
        if isinstance(effect, Reserve):  # nobody else takes places here: all are granted
            places = [(<Place>place).container for place in (<Reserve>effect).places]
            return Reserved((<Reserve>effect).queue, (<Reserve>effect).serial, tuple(places))
        if isinstance(effect, Create):
            self.containers += 1
            return ContainerServing((<Create>effect).container, (<Create>effect).invoker)
        if isinstance(effect, Release):  # nothing runs in it between two calls
            self.containers -= 1
            return ContainerGone((<Release>effect).container, (<Release>effect).why)
        if isinstance(effect, Adopt):  # nothing is left from an earlier leader
            return Adopted("here", (<Adopt>effect).queue, (<Adopt>effect).epoch)
        if isinstance(effect, Reject):
            self.refused[(<Reject>effect).activation.activation_id] = (<Reject>effect).reason
        return None  # Throttle, CloseQueue: nobody is to be told


def main():
    kinds = [f"kind-{number}" for number in range(8)]
    driver = Driver(containers_max=4)
    for kind in kinds:
        driver.open(kind)
    for number in range(100_000):
        driver.submit(kinds[number % 8], f"job-{number}", b"%d" % number)
    while len(driver.sums) + len(driver.refused) < 100_000:
        driver.tick()
    print(f"{len(driver.sums)} jobs of {len(kinds)} kinds in {driver.containers} containers")
