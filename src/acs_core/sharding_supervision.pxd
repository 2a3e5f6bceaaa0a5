cimport cython

from acs_core.abi cimport Abi4

cdef object _UP
cdef object _DOWN
cdef object _SUCCESS


@cython.final
cdef class SupervisedInvoker:
    cdef public object status
    cdef object _results
    cdef long long _heard_us
    cdef public long long test_due_us
    @cython.locals(success=bint)
    cpdef Py_ssize_t completed(self, object result, long long now_us) except -1


@cython.final
cdef class Supervision:
    cdef dict _supervised
    cdef public list invokers
    cdef public Py_ssize_t changes
    @cython.locals(supervised=SupervisedInvoker)
    cpdef Py_ssize_t completed(
        self, Py_ssize_t invoker, object result, long long now_us
    ) except -1
