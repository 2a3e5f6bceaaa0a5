cimport cython

from acs_core.containers cimport ContainerPool
from acs_core.effects cimport Deliver
from acs_core.events cimport Activation, Arrived, Completion, Pulled, RunEnded
from acs_core.scheduler cimport Scheduler

cdef long long ORDER_COUNT
cdef long long IDS_COUNT
cdef long long RUN_US
cdef long long EPOCH


cdef class SchedulerLoop:
    cdef readonly Scheduler scheduler
    cdef readonly long long now_us
    cdef long long position
    cdef list queues
    cdef list containers
    cdef list ids
    cdef list order
    cdef list running
    cdef long long ended
    @cython.locals(
        scheduler=Scheduler, now_us='long long', index='long long', place=Py_ssize_t,
        activation_id=str, activation=Activation, completion=Completion,
    )
    cpdef run_idle(self, long long count)
    @cython.locals(
        scheduler=Scheduler, now_us='long long', index='long long', place=Py_ssize_t,
        activation_id=str, activation=Activation, completion=Completion,
    )
    cpdef run_backlog(self, long long count)


cdef class PoolLoop:
    cdef readonly ContainerPool pool
    cdef readonly long long now_us
    cdef long long position
    cdef list containers
    cdef list ids
    cdef list order
    @cython.locals(
        pool=ContainerPool, now_us='long long', index='long long', container=str,
        activation_id=str, activation=Activation,
    )
    cpdef run(self, long long count)
