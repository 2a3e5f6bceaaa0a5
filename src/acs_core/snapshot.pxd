cimport cython

from acs_core.abi cimport Abi4


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
