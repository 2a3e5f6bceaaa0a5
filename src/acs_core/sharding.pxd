cimport cython

from acs_core.action_queue cimport DeadlineIndex
from acs_core.semaphores cimport NestedSemaphore

cdef object _UP


@cython.final
cdef class Balancer:
    cdef public object shards
    cdef dict _entries
    cdef DeadlineIndex _due
    cdef public list overloads
    cdef public dict acknowledgements
    cdef dict _hashes

    @cython.locals(number='long long')
    cpdef object publish(self, str activation_id, object action, long long now_us, object draw)
    cpdef object give_up(self, long long now_us)
    cdef object _release(self, object action, Py_ssize_t invoker)


@cython.locals(slot=NestedSemaphore)
cpdef object schedule(
    Py_ssize_t max_concurrent,
    str key,
    object invokers,
    list slots,
    Py_ssize_t memory_mb,
    long long index,
    long long step,
    object draw,
)
