cimport cython

from acs_core.events cimport Activation
from acs_core.ledger cimport ContainerEntry, QueueEntry
from acs_core.scheduler_base cimport SchedulerBase

cdef int _REMOVING


cdef class SchedulerDelivery(SchedulerBase):
    cdef object _deliver(
        self, QueueEntry queue, ContainerEntry container, Activation activation,
        long long now_us, list out,
    )
    @cython.locals(stack=list, container=ContainerEntry)
    cdef ContainerEntry _top(self, QueueEntry queue)
    @cython.locals(activation=Activation)
    cdef Activation _take(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(container=ContainerEntry, activation=Activation)
    cdef object _serve_line(self, QueueEntry queue, long long now_us, list out)
