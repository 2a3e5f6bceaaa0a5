cimport cython

from acs_core.abi cimport Abi4

cdef unsigned long long _MASK
cdef unsigned long long _GOLDEN
cdef unsigned long long _MIX_1
cdef unsigned long long _MIX_2
cdef double _UNIT


@cython.final
cdef class Chance:
    cdef unsigned long long _state
    @cython.locals(mixed='unsigned long long')
    cpdef long long draw(self)
    cpdef long long below(self, long long count)
    cpdef double unit(self)
    cpdef double exponential(self, double mean)
    @cython.locals(radius=double)
    cpdef double normal(self)
    cpdef double lognormal(self, double median, double sigma)
