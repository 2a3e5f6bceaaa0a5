cimport cython

from acs_core.abi cimport Abi4


@cython.final
cdef class InvokerView:
    cdef public str invoker
    cdef public long long free_mb
    cdef public Py_ssize_t creations
    cdef public long long creation_us
    cdef public double creations_per_s
    cpdef long long ready_us(self)


cpdef long long ready_us(Py_ssize_t creations, long long creation_us, double creations_per_s)


@cython.locals(view=InvokerView, best=InvokerView)
cpdef list place(list invokers, long long memory_mb, Py_ssize_t count)
cdef tuple _rank(InvokerView view)
