from acs_core.scheduler_queues cimport SchedulerQueues

cdef int _REMOVING


cdef class SchedulerContainers(SchedulerQueues):
    pass
