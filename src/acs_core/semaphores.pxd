cimport cython

from acs_core.abi cimport Abi4

cdef int _positive(str field, value) except -1
cdef int _int32(str field, value) except? -1
cdef long long _sum(str field, long long value, long long change) except? -1


cdef class ForcibleSemaphore:
    cdef int _permits
    cdef object _lock
    cpdef bint try_acquire(self, n=*) except -1
    cpdef force_acquire(self, n=*)
    cpdef release(self, n=*)


@cython.final
cdef class ResizableSemaphore:
    cdef int _permits
    cdef int _reduction_size
    cdef int _operation_count
    cdef object _lock
    cpdef bint try_acquire(self, n=*) except -1
    @cython.locals(count=int, permits=int, reduced=bint)
    cpdef tuple release(self, n=*, operation_complete=*)


@cython.final
cdef class NestedSemaphore(ForcibleSemaphore):
    cdef dict _runs
    cpdef bint try_acquire_concurrent(self, key, max_concurrent, memory) except -1
    cpdef force_acquire_concurrent(self, key, max_concurrent, memory)
    @cython.locals(permits=int, runs=ResizableSemaphore)
    cpdef release_concurrent(self, key, max_concurrent, memory)
    @cython.locals(runs=ResizableSemaphore, bought=bint, permits=int)
    cdef bint _acquire_concurrent(
        self, key, int max_concurrent, int memory, bint force
    ) except -1
