cimport cython

from acs_core.demand cimport starts_within
from acs_core.snapshot cimport Snapshot

cdef Py_ssize_t _COUNT_MAX


@cython.final
cdef class Forecast:
    cdef readonly Snapshot snapshot
    cdef readonly Py_ssize_t memory_places
    cdef readonly long long at_us
    cdef readonly long long within_us
    cdef readonly Py_ssize_t containers
    cdef readonly Py_ssize_t startable
    @cython.locals(starts=double)
    cpdef Py_ssize_t startable_within(self, long long within_us) except? -1
