cimport cython

from acs_core.abi cimport Abi4


@cython.final
cdef class _Entry:
    cdef readonly str namespace
    cdef readonly bint lacks_memory
    cdef readonly double share
    cdef readonly Py_ssize_t containers
    cdef readonly Py_ssize_t since


@cython.final
cdef class Starving:
    cdef dict _entries
    cdef object _memory
    cdef dict _places
    cdef Py_ssize_t _since
    @cython.locals(entry=_Entry)
    cpdef bint lacks_memory(self, str queue) except -1
    @cython.locals(known=_Entry, since=Py_ssize_t)
    cpdef bint put(
        self, str queue, str namespace, bint lacks_memory, double share, Py_ssize_t containers
    ) except -1
    @cython.locals(entry=_Entry)
    cpdef object drop(self, str queue)
    cpdef list first(self, str namespace)
    cdef readonly object elsewhere
