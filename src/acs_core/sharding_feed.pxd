cimport cython

from acs_core.effects cimport Reject
from acs_core.events cimport DrainRequested, Event, RunEnded
from acs_core.sharding_pool cimport Push, PushPool

cdef long long _NEVER
cdef int _PLATFORM_ERROR


@cython.final
cdef class Acknowledged(Event):
    cdef readonly str invoker
    cdef readonly str activation_id
    cdef readonly bint system_error


@cython.final
cdef class Feed:
    cdef readonly Py_ssize_t capacity_max
    cdef public Py_ssize_t capacity
    cdef readonly object topic
    cpdef list offer(self, Push push)
    cpdef list processed(self)
    @cython.locals(count=Py_ssize_t)
    cdef list _through(self)


@cython.final
cdef class FedPool:
    cdef readonly object config
    cdef readonly PushPool pool
    cdef readonly Feed feed
    cdef long long _now_us
    cdef bint _draining

    @cython.locals(out=list, todo=list)
    cpdef list step(self, object event, long long now_us)
    cpdef object next_deadline_us(self)
