cimport cython

from acs_core.snapshot cimport Decision, Snapshot
from acs_core.events cimport Activation
from acs_core.ledger cimport ContainerEntry, QueueEntry
from acs_core.scheduler_room cimport SchedulerRoom

cdef int _IDLE
cdef int _FLUSHING
cdef int _ACTION_THROTTLED
cdef int _REMOVING
cdef long long _RESUME_US


cdef class SchedulerDecisions(SchedulerRoom):
    @cython.locals(due_us='long long', interval_us='long long', starves=bint)
    cdef object _consider(self, QueueEntry queue, long long now_us, list out)
    cdef object _settle(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(
        state=int, creation_us='long long', lacks_place=bint, lacks_memory=bint, snapshot=Snapshot,
        decision=Decision, containers=Py_ssize_t,
    )
    cdef object _decide(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(container=ContainerEntry, head=Activation, wanted=Py_ssize_t, asleep=list)
    cdef object _resume_paused(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(lacks=Py_ssize_t, container=ContainerEntry)
    cdef object _keep_floor(self, QueueEntry queue, long long now_us, list out)
