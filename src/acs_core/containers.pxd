cimport cython

from acs_core.effects cimport Adopt, Deliver
from acs_core.events cimport Activation, QueueSpec, RunEnded

cdef int _STARTING
cdef int _FRESH
cdef int _INITIALISING
cdef int _READY
cdef int _LEAVING
cdef int _REMOVING
cdef int _PAUSING
cdef int _PAUSED
cdef int _RESUMING
cdef int _WAITING
cdef int _APPLICATION_ERROR
cdef long long _NEVER
cdef dict _HANDLERS


@cython.final
cdef class PoolContainer:
    cdef public str container
    cdef public long long epoch
    cdef public QueueSpec spec
    cdef public int state_index
    cdef public dict running
    cdef public Activation first
    cdef public long long init_us
    cdef public list unreported
    cdef public str cause
    cdef public bint initialised
    cdef public list held
    cdef public bint wanted
    cdef public bint keep


@cython.final
cdef class ContainerPool:
    cdef readonly object config
    cdef long long _now_us
    cdef dict _containers
    cdef dict _idle
    cdef dict _epochs
    cdef long long _next_abort_us
    cdef bint _draining
    cdef long long _keep_alive_us
    cdef Py_ssize_t _created
    cdef dict _awake
    cdef dict _waiting
    cdef object _prewarmed
    cdef bint _prewarms
    cdef long long _drained_us
    cdef long long _pause_grace_us
    cdef dict _kept_idle
    cdef bint _idle_held

    @cython.locals(out=list)
    cpdef list step(self, object event, long long now_us)
    @cython.locals(due_us='long long')
    cpdef object next_deadline_us(self)
    @cython.locals(container=PoolContainer, activation=Activation, activation_id=str, state=int)
    cdef object _delivered(self, Deliver event, long long now_us, list out)
    @cython.locals(deadline_us='long long')
    cdef object _limit(self, PoolContainer container, str activation_id, long long now_us)
    @cython.locals(container=PoolContainer, first=Activation, init_us='long long', reusable=bint)
    cdef object _run_ended(self, RunEnded event, long long now_us, list out)
    cdef tuple _started(self, PoolContainer container)
    cdef object _leave(self, PoolContainer container, str cause, bint tell, list out)
    cdef object _start_run(
        self, PoolContainer container, Activation activation, long long now_us, list out
    )
    cdef object _rest(self, PoolContainer container, long long now_us)
    cdef object _stir(self, PoolContainer container)
    # Once for each queue that opens, at each invoker.
    @cython.locals(container=PoolContainer, state=int, queue=str)
    cpdef object _adopt(self, Adopt event, long long now_us, list out)
