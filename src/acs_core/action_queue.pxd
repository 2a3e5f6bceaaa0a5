cimport cython

from acs_core.events cimport Activation

cdef Py_ssize_t _PARTS


@cython.final
cdef class ActionQueue:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t waiting
    cdef object _line
    cpdef bint offer(self, Activation activation) except -1
    cpdef object put_back(self, Activation activation)
    @cython.locals(activation=Activation)
    cpdef Activation take(self)
    @cython.locals(activation=Activation)
    cpdef Activation head(self)
    cpdef object withdraw(self, Activation activation)


@cython.final
cdef class DeadlineIndex:
    cdef dict _times
    cdef object _order
    cdef long long _next_us
    cpdef long long next_us(self)
    cpdef long long time_of(self, str key)
    @cython.locals(known_us='long long')
    cpdef object set(self, str key, long long due_us)
    cpdef object discard(self, str key)
    cpdef str pop_due(self, long long now_us)


@cython.final
cdef class ActivationTable:
    cdef list _parts
    cpdef Activation get(self, str activation_id)
    cdef dict _part(self, str activation_id)
