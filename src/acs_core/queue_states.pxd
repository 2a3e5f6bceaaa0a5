cimport cython

from acs_core.abi cimport Abi4

cdef int _ILLEGAL
cdef int _SIGNALS
cdef bytes _NEXT


@cython.final
cdef class QueueLife:
    cdef readonly int state_index
    cpdef bint can(self, int signal) except -1
    @cython.locals(new=int, moved=bint)
    cpdef bint fire(self, int signal) except -1
