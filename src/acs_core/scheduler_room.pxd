cimport cython

from acs_core.ledger cimport ContainerEntry, NamespaceEntry, QueueEntry
from acs_core.scheduler_delivery cimport SchedulerDelivery

cdef bint _may_go(ContainerEntry container, bint spares_floors) except -1
@cython.locals(pause_us='long long', rate_per_s=double)
cdef bint _can_spare(ContainerEntry container, long long creation_us, long long now_us) except -1


cdef class SchedulerRoom(SchedulerDelivery):
    @cython.locals(
        level=Py_ssize_t, wanted='long long', containers=dict, container=ContainerEntry,
        other=QueueEntry, calls=bint, idle=list, has_none=bint, creation_us='long long',
    )
    cdef object _make_room(
        self, QueueEntry queue, Py_ssize_t count, bint in_namespace, bint give_back,
        long long now_us, list out)
    @cython.locals(
        where=dict, holders=dict, container=ContainerEntry, other=QueueEntry, there=Py_ssize_t,
        turn_us='long long', holder_count=Py_ssize_t, totals=dict, richest=dict, longest=dict,
        namespace=str, name=str, containers=Py_ssize_t, spares_floors=bint,
        poorest=Py_ssize_t,
    )
    cdef object _give_back(self, QueueEntry queue, bint in_namespace, long long now_us, list out)
    cdef Py_ssize_t _there(self, QueueEntry queue) except? -1
    @cython.locals(container=ContainerEntry)
    cdef long long _turn_us(self, QueueEntry queue, bint spares_floors, long long now_us)
    @cython.locals(container=ContainerEntry)
    cdef bint _can_give(self, QueueEntry queue, bint spares_floors) except -1
    cdef bint _starve(self, QueueEntry queue, bint lacks_memory) except -1
    @cython.locals(names=list, moved=bint, name=str)
    cdef list _line(self, str namespace)
    cdef list _needier(self, QueueEntry queue, bint in_namespace)
    @cython.locals(namespace=NamespaceEntry, held=Py_ssize_t, own=Py_ssize_t)
    cdef tuple _wealth(self, QueueEntry queue)
