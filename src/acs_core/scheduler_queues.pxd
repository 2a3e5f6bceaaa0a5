from acs_core.scheduler_decisions cimport SchedulerDecisions

cdef int _UNINITIALIZED


cdef class SchedulerQueues(SchedulerDecisions):
    pass
