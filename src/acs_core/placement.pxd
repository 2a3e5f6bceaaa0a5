cimport cython

from acs_core.abi cimport Abi3


@cython.final
cdef class InvokerView:
    cdef public str invoker
    cdef public long long free_mb
    cdef public Py_ssize_t creations
    cdef public long long creation_us
    cdef public double creations_per_s
    cpdef long long ready_us(self)


