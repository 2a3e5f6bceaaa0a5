cimport cython

from acs_core.snapshot cimport Snapshot
from acs_core.events cimport Activation, Arrived, Completion, Pulled
from acs_core.forecast cimport Forecast
from acs_core.ledger cimport ContainerEntry, QueueEntry
from acs_core.scheduler_containers cimport SchedulerContainers

cdef int _UNINITIALIZED
cdef int _RUNNING
cdef int _IDLE
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _ACTION_THROTTLED
cdef int _REMOVING
cdef int _APPLICATION_ERROR
cdef long long _NEVER
cdef int _LOOKS_MAX
cdef dict _HANDLERS


@cython.final
cdef class Scheduler(SchedulerContainers):
    @cython.locals(out=list)
    cpdef list step(self, object event, long long now_us)
    @cython.locals(due_us='long long')
    cpdef object next_deadline_us(self)
    @cython.locals(
        queue=QueueEntry, activation=Activation, state=int, container=ContainerEntry,
        forecast=Forecast,
    )
    cdef object _arrived(self, Arrived event, long long now_us, list out)
    @cython.locals(
        container=ContainerEntry, queue=QueueEntry, completion=Completion, activation=Activation,
        room=Py_ssize_t,
    )
    cdef object _pulled(self, Pulled event, long long now_us, list out)
    @cython.locals(
        forecast=Forecast, snapshot=Snapshot, waiting=Py_ssize_t, within_us='long long')
    cdef bint _refuse_late(
        self, QueueEntry queue, Activation activation, long long now_us, list out
    ) except -1
    @cython.locals(head=Activation, key=str, state=int, grace_us='long long')
    cdef object _look(self, QueueEntry queue, long long now_us, list out)
