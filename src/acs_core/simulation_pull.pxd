cimport cython

from acs_core.containers cimport ContainerPool
from acs_core.effects cimport Deliver
from acs_core.events cimport Pulled, QueueSpec
from acs_core.scheduler cimport Scheduler
from acs_core.simulation cimport Cluster, Flight, Host

cdef long long _NEVER
cdef int _UNKNOWN
cdef int _SUBMIT
cdef int _TO_INVOKER
cdef int _TO_SCHEDULER
cdef int _TICK_INVOKER
cdef int _TICK_SCHEDULER
cdef int _RESERVE
cdef int _LEASE_END
cdef int _REPORT


cdef class PullCluster(Cluster):
    cdef dict _places
    cdef long long _epoch
    cdef list _schedulers
    cdef list _armed_us
    cdef dict _owner
    cdef dict _granted
    cdef dict _namespace_counts
    cdef list _used_mb
    cdef dict _host_of

    cpdef object dispatch(self, int kind, object target, object what, long long now_us)
    cpdef object submit(self, Flight flight, str activation_id, long long now_us)
    @cython.locals(scheduler=Scheduler, spec=QueueSpec, index=Py_ssize_t)
    cdef object _submitted(self, Flight flight, long long now_us)
    cdef object _told(self, Py_ssize_t index, object event, long long now_us)
    @cython.locals(scheduler=Scheduler, host=Host)
    cdef object _step(self, Py_ssize_t index, object event, long long now_us)
    @cython.locals(host=Host)
    cdef object _deliver(self, Deliver effect, long long now_us)
    cdef object _pulled(self, Host host, Pulled effect, long long now_us)
    @cython.locals(pool=ContainerPool, index=Py_ssize_t)
    cpdef object at_host(self, Host host, object event, long long now_us)
    cdef object _arm(self, Host host, long long now_us)
    cpdef object new_host(self, Py_ssize_t index, long long now_us)
    cpdef object lost(self, Host host, long long now_us)
