cimport cython

from acs_core.events cimport Activation

cdef Py_ssize_t _PARTS
cdef Py_ssize_t _TIME_DIGITS

cdef str _entry(long long due_us, str key)


@cython.final
cdef class ActionQueue:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t waiting
    cdef object _line
    cdef object _calls
    cdef dict _nested
    cpdef bint offer(self, Activation activation) except -1
    cpdef object put_back(self, Activation activation)
    @cython.locals(activation=Activation)
    cpdef Activation take(self)
    @cython.locals(activation=Activation, oldest=Activation)
    cpdef Activation head(self)
    cpdef object withdraw(self, Activation activation)
    @cython.locals(depth=Py_ssize_t, call=Activation)
    cpdef Activation take_call(self, Py_ssize_t depth_min)
    cpdef object drop_head(self)
    cpdef Py_ssize_t depth(self) except -1
    cdef object _line_of_call(self, Activation call)
    cdef object _remove_call(self, Activation call)
    cdef object _sweep(self)


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
    @cython.locals(entry=str, key=str)
    cpdef str pop_due(self, long long now_us)
    @cython.locals(first=str)
    cdef object _find_next(self)


@cython.final
cdef class ActivationTable:
    cdef list _parts
    cpdef Activation get(self, str activation_id)
    cdef dict _part(self, str activation_id)
