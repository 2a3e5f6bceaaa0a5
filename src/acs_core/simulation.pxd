cimport cython

from acs_core.chance cimport Chance
from acs_core.effects cimport Run
from acs_core.events cimport Activation, RunEnded
from acs_core.simulation_report cimport Histogram

cdef long long _NEVER
cdef int _DEVELOPER_ERROR
cdef int _CREATE
cdef int _REMOVE
cdef int _PAUSE
cdef int _RESUME
cdef int _ARRIVAL
cdef int _AT_INVOKER
cdef int _DEATH


@cython.final
cdef class Flight:
    cdef readonly Py_ssize_t action
    cdef readonly Py_ssize_t user
    cdef readonly long long arrived_us
    cdef readonly long long run_us
    cdef public Py_ssize_t controller
    cdef public long long started_us
    cdef public bint cold
    cdef public Activation activation


@cython.final
cdef class Link:
    cdef public long long last_us


@cython.final
cdef class Host:
    cdef readonly Py_ssize_t index
    cdef readonly str name
    cdef readonly object pool
    cdef public object engine
    cdef public bint alive
    cdef readonly Link link
    cdef readonly Link back
    cdef readonly dict sandboxes
    cdef public long long free_us
    cdef public long long armed_us


cdef class Cluster:
    cdef readonly object config
    cdef readonly list actions
    cdef readonly long long now_us
    cdef readonly Chance chance
    cdef readonly dict flights
    cdef readonly list hosts
    cdef readonly long long events
    cdef list _agenda
    cdef long long _serial
    cdef long long _ids
    cdef object _arrivals
    cdef double _users_run_us
    cdef double _users_sigma
    cdef long long _think_us
    cdef long long _link_us
    cdef long long _controller_us
    cdef long long _dispatch_us
    cdef long long _init_us
    cdef long long _overhead_us
    cdef bint _faulty_links
    cdef list _controllers_free_us
    cdef Py_ssize_t _next_controller
    cdef long long _warmup_us
    cdef long long _arrived
    cdef long long _ended
    cdef long long _answered
    cdef long long _errors
    cdef long long _rejected
    cdef long long _unknown
    cdef long long _cold
    cdef long long _started_twice
    cdef Histogram _wait
    cdef Histogram _latency
    cdef long long _created
    cdef long long _removed
    cdef object _container_us
    cdef object _memory_mb_us
    cdef object _busy_us
    cdef object _soon

    @cython.locals(agenda=list, entry=tuple, now_us='long long', kind=int)
    cpdef object run_until(self, long long until_us)
    cpdef object dispatch(self, int kind, object target, object what, long long now_us)
    cpdef object submit(self, Flight flight, str activation_id, long long now_us)
    cpdef object at_host(self, Host host, object event, long long now_us)
    cpdef object new_host(self, Py_ssize_t index, long long now_us)
    cpdef object lost(self, Host host, long long now_us)
    cpdef object _put(self, long long at_us, int kind, object target, object what)
    @cython.locals(flight=Flight, at_us='long long', controller=Py_ssize_t, activation_id=str)
    cdef object _arrive(self, object what, long long now_us)
    @cython.locals(flight=Flight)
    cpdef object finish(self, str activation_id, int how, long long now_us)
    @cython.locals(flight=Flight)
    cpdef bint node_effect(self, Host host, object effect, long long now_us) except -1
    @cython.locals(flight=Flight, activation_id=str, run_us='long long', at_us='long long')
    cdef object _run(self, Host host, Run effect, long long now_us)
    cpdef object note(self, Host host, object event, long long now_us)
    cdef object _run_ended(self, RunEnded event, long long now_us)
    @cython.locals(at_us='long long', copies=int, draw=double)
    cpdef object send(
        self, Link link, Host host, int kind, object target, object what, long long now_us
    )
    cpdef object _put_soon(self, long long at_us, int kind, object target, object what)
