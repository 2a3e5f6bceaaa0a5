cimport cython

from acs_core.abi cimport Abi4
from acs_core.snapshot cimport Decision, Snapshot

cdef int _RUNNING
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _REMOVING


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


@cython.locals(count=Py_ssize_t)
cdef Decision _old_add(
    Snapshot snapshot, Py_ssize_t wanted, Py_ssize_t room, Py_ssize_t namespace_room)
cdef Py_ssize_t _ceil_int(double value) except? -1
