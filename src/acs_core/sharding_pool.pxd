cimport cython

from acs_core.events cimport Activation, Event, QueueSpec, RunEnded
from acs_core.sharding_container cimport PushContainer

cdef int _STARTING
cdef int _RUNNING
cdef int _READY
cdef int _PAUSING
cdef int _PAUSED
cdef int _RESUMING
cdef int _REMOVING
cdef int _APPLICATION_ERROR
cdef long long _NEVER
cdef dict _HANDLERS


@cython.final
cdef class Push(Event):
    cdef readonly QueueSpec spec
    cdef readonly Activation activation


@cython.final
cdef class PushPool:
    cdef readonly object config
    cdef long long _now_us
    cdef dict _free
    cdef dict _free_of
    cdef dict _busy
    cdef dict _containers
    cdef object _buffer
    cdef object _mail
    cdef bint _resent
    cdef bint _draining
    cdef long long _due_us
    cdef object _prewarmed
    cdef bint _prewarms
    cdef Py_ssize_t _serial
    cdef dict _starts

    @cython.locals(out=list)
    cpdef list step(self, object event, long long now_us)
    @cython.locals(due_us='long long')
    cpdef object next_deadline_us(self)
    @cython.locals(container=PushContainer, used_mb='long long')
    cpdef long long used_mb(self)
    @cython.locals(container=PushContainer, victim=PushContainer, victims=list)
    cdef object _push(self, Push event, long long now_us, list out)
    @cython.locals(container=PushContainer, free=dict, warming=int)
    cdef PushContainer _find(self, QueueSpec spec)
    cdef object _place(self, PushContainer container)
    cdef object _next(self, list out)
    @cython.locals(state=int)
    cdef object _assign(
        self, PushContainer container, Activation activation, long long now_us, list out
    )
    @cython.locals(deadline_us='long long')
    cdef object _limit(self, PushContainer container, Activation activation, long long now_us)
    cdef object _run(
        self, PushContainer container, Activation activation, long long now_us, list out
    )
    cdef object _run_held(self, PushContainer container, long long now_us, list out)
    @cython.locals(container=PushContainer)
    cdef object _run_ended(self, RunEnded event, long long now_us, list out)
    cdef object _drop(self, PushContainer container)
    cdef object _idles(self, PushContainer container, long long now_us)
    cdef long long _idle_due_us(self, PushContainer container)
