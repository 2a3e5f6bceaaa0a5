cimport cython

from acs_core.abi cimport Abi4
# Under other names, so that Python finds the classes in ``demand`` as well.
from acs_core.snapshot cimport Decision as CDecision, Snapshot as CSnapshot

cdef int _UNINITIALIZED
cdef int _IDLE
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _REMOVED


@cython.final
cdef class RuntimeFitRule:
    @cython.locals(state=int)
    cpdef CDecision decide(self, CSnapshot snapshot)
    @cython.locals(
        total=Py_ssize_t, creation_ms=double, run_ms=double, target_ms=double,
        limit_ms=double, useful=Py_ssize_t, backlog=Py_ssize_t, room=Py_ssize_t,
        namespace_full=bint, steady=Py_ssize_t, wanted=Py_ssize_t, count=Py_ssize_t, overdue=Py_ssize_t,
        saturated=Py_ssize_t, hold_ms=double,
        guess=Py_ssize_t, guessed=bint, most=Py_ssize_t)
    cdef CDecision _weigh(self, CSnapshot snapshot, int state)


cpdef double predicted_wait_ms(CSnapshot snapshot, Py_ssize_t containers) except? -1

@cython.locals(
    run_ms=double, ready_ms=double, low_ms=double, high_ms=double, middle_ms=double)
cpdef double wait_behind_ms(
    CSnapshot snapshot, Py_ssize_t containers, Py_ssize_t backlog) except? -1

@cython.locals(making=Py_ssize_t, run_ms=double, creation_ms=double, slots=double)
cpdef double starts_within(CSnapshot snapshot, Py_ssize_t containers, double within_ms) except? -1

@cython.locals(
    offered=double, slots_max=double, ratio=double, tail_ms=double, deviation=double,
    slots=double, blocked=double, waits=double)
cpdef Py_ssize_t steady_containers(
    double arrivals_per_s, double duration_ms, double spread_ms, Py_ssize_t concurrency,
    double wait_target_ms, Py_ssize_t containers_max=*) except? -1

@cython.locals(left=double, each=double)
cdef Py_ssize_t _backlog_containers(
    CSnapshot snapshot, double run_ms, double creation_ms, double limit_ms) except? -1
@cython.locals(concurrency=double, slots=double, running=double, resumed_ms=double)
cdef double _starts_there(
    CSnapshot snapshot, double run_ms, double creation_ms, double within_ms) except? -1
@cython.locals(
    window_ms=double, starts=double, staggered=double, since_ms=double, rounds=double,
    ended=double)
cdef double _busy_starts(double running, double oldest_ms, double run_ms, double within_ms) except? -1
cdef double _slot_starts(double since_ms, double run_ms) except? -1
@cython.locals(spread_ms=double)
cdef Py_ssize_t _steady_size(
    CSnapshot snapshot, double run_ms, double target_ms, Py_ssize_t containers_max) except? -1
@cython.locals(slots=Py_ssize_t)
cdef Py_ssize_t _useful_containers(CSnapshot snapshot) except? -1
@cython.locals(room=Py_ssize_t)
cdef Py_ssize_t _namespace_room(CSnapshot snapshot) except? -1
cdef double _run_ms(CSnapshot snapshot) except? -1
cdef double _creation_ms(CSnapshot snapshot) except? -1
cdef double _wait_target_ms(CSnapshot snapshot, double creation_ms, double run_ms) except? -1
cdef double _floor(double value) except? -1
cdef double _ceil(double value) except? -1
@cython.locals(asked=Py_ssize_t)
cdef Py_ssize_t _overdue_containers(CSnapshot snapshot) except? -1
@cython.locals(slots=Py_ssize_t)
cdef Py_ssize_t _saturated_size(
    CSnapshot snapshot, double run_ms, double creation_ms, Py_ssize_t total) except? -1
