cimport cython

from acs_core.abi cimport Abi4

cdef Py_ssize_t _STEPS


@cython.final
cdef class Histogram:
    cdef list _counts
    cdef readonly long long count
    cdef readonly long long total
    cdef readonly long long largest
    @cython.locals(index='long long', shift=int, rest='long long')
    cpdef object add(self, long long value)
    cpdef long long quantile(self, double share)
    cpdef double mean(self)
