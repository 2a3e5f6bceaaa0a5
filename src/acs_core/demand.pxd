cimport cython

from acs_core.abi cimport Abi4

cdef int _UNINITIALIZED
cdef int _RUNNING
cdef int _IDLE
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _REMOVING
cdef int _REMOVED


@cython.final
cdef class Snapshot:
    cdef readonly int state_index
    cdef readonly bint initialized
    cdef readonly Py_ssize_t incoming
    cdef readonly Py_ssize_t waiting
    cdef readonly Py_ssize_t existing
    cdef readonly Py_ssize_t in_progress
    cdef readonly Py_ssize_t stale
    cdef readonly Py_ssize_t namespace_existing
    cdef readonly Py_ssize_t namespace_in_progress
    cdef readonly object average_duration_ms
    cdef readonly Py_ssize_t namespace_limit
    cdef readonly Py_ssize_t action_limit
    cdef readonly Py_ssize_t concurrency
    cdef readonly double arrivals_per_s
    cdef readonly object creation_ms
    cdef readonly object wait_target_ms
    cdef readonly Py_ssize_t running
    cdef readonly Py_ssize_t paused
    cdef readonly double oldest_run_ms
    cdef readonly Py_ssize_t contending_queues
    cdef readonly object duration_spread_ms
    cdef readonly double steady_short_ms
    cdef readonly double oldest_wait_ms
    cdef readonly double typical_run_ms


@cython.final
cdef class Decision:
    cdef readonly object verdict
    cdef readonly Py_ssize_t count
    cdef readonly Snapshot snapshot
    cdef readonly bint drop
    cdef readonly bint steady_short
    cdef readonly Py_ssize_t wanted
    cdef readonly Py_ssize_t room
    cdef readonly Py_ssize_t steady
    cdef readonly double limit_ms
    cdef str _reason
    cdef str _rejected


@cython.final
cdef class RuntimeFitRule:
    @cython.locals(state=int)
    cpdef Decision decide(self, Snapshot snapshot)
    @cython.locals(
        total=Py_ssize_t, creation_ms=double, run_ms=double, target_ms=double,
        limit_ms=double, useful=Py_ssize_t, backlog=Py_ssize_t, room=Py_ssize_t,
        namespace_full=bint, steady=Py_ssize_t, wanted=Py_ssize_t, count=Py_ssize_t, overdue=Py_ssize_t,
        saturated=Py_ssize_t, hold_ms=double)
    cdef Decision _weigh(self, Snapshot snapshot, int state)


@cython.final
cdef class OpenWhiskRule:
    cdef readonly double stale_ms
    cdef readonly bint over_provision
    cdef readonly double over_provision_ratio
    @cython.locals(
        s=Snapshot, state=int, total=Py_ssize_t, available=Py_ssize_t, used=Py_ssize_t,
        over=Py_ssize_t, namespace_room=Py_ssize_t, room=Py_ssize_t, wanted=Py_ssize_t)
    cpdef Decision decide(self, Snapshot snapshot)
    @cython.locals(state=int, may_exceed=bint)
    cdef Decision _full(self, Snapshot snapshot, Py_ssize_t total, Py_ssize_t over)
    @cython.locals(
        s=Snapshot, duration_ms=double, throughput=double, stale=Py_ssize_t, fresh=Py_ssize_t,
        fresh_share=Py_ssize_t)
    cdef Py_ssize_t _wanted(
        self, Snapshot snapshot, Py_ssize_t total, Py_ssize_t available) except? -1


cpdef double predicted_wait_ms(Snapshot snapshot, Py_ssize_t containers) except? -1

@cython.locals(
    run_ms=double, ready_ms=double, low_ms=double, high_ms=double, middle_ms=double)
cpdef double wait_behind_ms(
    Snapshot snapshot, Py_ssize_t containers, Py_ssize_t backlog) except? -1

@cython.locals(making=Py_ssize_t, run_ms=double, creation_ms=double, slots=double)
cpdef double starts_within(Snapshot snapshot, Py_ssize_t containers, double within_ms) except? -1

@cython.locals(
    offered=double, slots_max=double, ratio=double, tail_ms=double, deviation=double,
    slots=double, blocked=double, waits=double)
cpdef Py_ssize_t steady_containers(
    double arrivals_per_s, double duration_ms, double spread_ms, Py_ssize_t concurrency,
    double wait_target_ms, Py_ssize_t containers_max=*) except? -1

@cython.locals(left=double, each=double)
cdef Py_ssize_t _backlog_containers(
    Snapshot snapshot, double run_ms, double creation_ms, double limit_ms) except? -1
@cython.locals(concurrency=double, slots=double, running=double, resumed_ms=double)
cdef double _starts_there(
    Snapshot snapshot, double run_ms, double creation_ms, double within_ms) except? -1
@cython.locals(
    window_ms=double, starts=double, staggered=double, since_ms=double, rounds=double,
    ended=double)
cdef double _busy_starts(double running, double oldest_ms, double run_ms, double within_ms) except? -1
cdef double _slot_starts(double since_ms, double run_ms) except? -1
@cython.locals(spread_ms=double)
cdef Py_ssize_t _steady_size(
    Snapshot snapshot, double run_ms, double target_ms, Py_ssize_t containers_max) except? -1
@cython.locals(slots=Py_ssize_t)
cdef Py_ssize_t _useful_containers(Snapshot snapshot) except? -1
@cython.locals(room=Py_ssize_t)
cdef Py_ssize_t _namespace_room(Snapshot snapshot) except? -1
cdef double _run_ms(Snapshot snapshot) except? -1
cdef double _creation_ms(Snapshot snapshot) except? -1
cdef double _wait_target_ms(Snapshot snapshot, double creation_ms, double run_ms) except? -1
@cython.locals(count=Py_ssize_t)
cdef Decision _old_add(
    Snapshot snapshot, Py_ssize_t wanted, Py_ssize_t room, Py_ssize_t namespace_room)
cdef double _floor(double value) except? -1
cdef double _ceil(double value) except? -1
cdef Py_ssize_t _ceil_int(double value) except? -1
@cython.locals(asked=Py_ssize_t)
cdef Py_ssize_t _overdue_containers(Snapshot snapshot) except? -1
@cython.locals(slots=Py_ssize_t)
cdef Py_ssize_t _saturated_size(
    Snapshot snapshot, double run_ms, double creation_ms, Py_ssize_t total) except? -1
