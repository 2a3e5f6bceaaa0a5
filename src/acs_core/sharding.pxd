cimport cython

from acs_core.semaphores cimport NestedSemaphore

cdef object _UP


@cython.final
cdef class Balancer:
    cdef public object shards
    cdef dict _entries
    cdef long long _due_us
    cdef public list overloads
    cdef public dict acknowledgements

    @cython.locals(number='long long', due_us='long long')
    cpdef object publish(self, str activation_id, object action, long long now_us, object draw)
    cpdef object give_up(self, long long now_us)
    @cython.locals(slot=NestedSemaphore)
    cdef object _release(self, object action, Py_ssize_t invoker)


cpdef long long ack_timeout_us(long long timeout_us, long long factor=*, long long addon_us=*)


@cython.locals(number=Py_ssize_t, slot=NestedSemaphore)
cpdef object schedule(
    object max_concurrent,
    str key,
    object invokers,
    list slots,
    object memory_mb,
    long long index,
    long long step,
    object draw,
)
