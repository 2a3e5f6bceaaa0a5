cimport cython

from acs_core.abi cimport Abi4

cpdef object _check_name(str field, object text)
@cython.locals(number='long long')
cpdef object _check_range(str field, object value, long long low, long long high)
cdef long long _SLOTS_MAX
cdef long long _TIME_MAX_US


@cython.final
cdef class QueueSpec:
    cdef readonly str queue
    cdef readonly str namespace
    cdef readonly str action
    cdef readonly long long revision
    cdef readonly long long memory_mb
    cdef readonly Py_ssize_t concurrency
    cdef readonly long long timeout_us
    cdef readonly object action_limit
    cdef readonly str kind
    cdef readonly Py_ssize_t containers_min
    cdef readonly object wait_target_us
    cdef readonly object wait_max_us


@cython.final
cdef class Activation:
    cdef readonly str activation_id
    cdef readonly bytes payload
    cdef readonly long long arrived_us
    cdef readonly long long deadline_us
    cdef readonly tuple causes
    cdef public str queue
    cdef public long long delivered_us
    cdef public bint started
    cdef public bint withdrawn


@cython.final
cdef class Completion:
    cdef readonly str activation_id
    cdef readonly long long init_us
    cdef readonly long long run_us
    cdef readonly int outcome


cdef class Event:
    pass


@cython.final
cdef class QueueOpened(Event):
    cdef readonly QueueSpec spec
    cdef readonly long long epoch
    cdef readonly long long history_us


@cython.final
cdef class QueueClosing(Event):
    cdef readonly str queue
    cdef readonly str why


@cython.final
cdef class LeadershipLost(Event):
    cdef readonly str queue
    cdef readonly str to


@cython.final
cdef class LimitsChanged(Event):
    cdef readonly str namespace
    cdef readonly long long containers_max
    cdef readonly double weight
    cdef readonly long long reserve


@cython.final
cdef class Arrived(Event):
    cdef readonly str queue
    cdef readonly Activation activation


@cython.final
cdef class Cancelled(Event):
    cdef readonly str activation_id


@cython.final
cdef class Reserved(Event):
    cdef readonly str queue
    cdef readonly long long serial
    cdef readonly tuple containers


@cython.final
cdef class Denied(Event):
    cdef readonly str queue
    cdef readonly long long serial
    cdef readonly str reason


@cython.final
cdef class HungerElsewhere(Event):
    cdef readonly str queue
    cdef readonly str namespace
    cdef readonly long long containers
    cdef readonly long long namespace_containers
    cdef readonly bint lacks_memory
    cdef readonly str giver
    cdef readonly long long giver_containers


@cython.final
cdef class HungerEnded(Event):
    cdef readonly str queue


@cython.final
cdef class InvokerReported(Event):
    cdef readonly str invoker
    cdef readonly long long memory_mb
    cdef readonly long long elsewhere_mb
    cdef readonly long long creation_us
    cdef readonly double creations_per_s


@cython.final
cdef class InvokerGone(Event):
    cdef readonly str invoker


@cython.final
cdef class TimeReached(Event):
    pass


@cython.final
cdef class Held:
    cdef readonly str container
    cdef readonly bint serving
    cdef readonly tuple activation_ids
    cdef readonly bint keep


@cython.final
cdef class Adopted(Event):
    cdef readonly str invoker
    cdef readonly str queue
    cdef readonly long long epoch
    cdef readonly tuple held


@cython.final
cdef class ContainerServing(Event):
    cdef readonly str container
    cdef readonly str invoker


@cython.final
cdef class CreationFailed(Event):
    cdef readonly str container
    cdef readonly int failure
    cdef readonly str cause


@cython.final
cdef class Pulled(Event):
    cdef readonly str container
    cdef readonly long long epoch
    cdef readonly Py_ssize_t free_slots
    cdef readonly tuple started
    cdef readonly tuple completions


@cython.final
cdef class Returned(Event):
    cdef readonly str container
    cdef readonly long long epoch
    cdef readonly tuple activation_ids


@cython.final
cdef class ContainerPaused(Event):
    cdef readonly str container


@cython.final
cdef class ContainerLeaving(Event):
    cdef readonly str container
    cdef readonly str cause


@cython.final
cdef class ContainerGone(Event):
    cdef readonly str container
    cdef readonly str cause


@cython.final
cdef class SandboxReady(Event):
    cdef readonly str container


@cython.final
cdef class SandboxFailed(Event):
    cdef readonly str container
    cdef readonly int failure
    cdef readonly str cause


@cython.final
cdef class SandboxBroke(Event):
    cdef readonly str container
    cdef readonly str cause


@cython.final
cdef class SandboxRemoved(Event):
    cdef readonly str container


@cython.final
cdef class SandboxPaused(Event):
    cdef readonly str container


@cython.final
cdef class SandboxResumed(Event):
    cdef readonly str container


@cython.final
cdef class Initialised(Event):
    cdef readonly str container
    cdef readonly long long init_us


@cython.final
cdef class RunEnded(Event):
    cdef readonly str container
    cdef readonly str activation_id
    cdef readonly long long run_us
    cdef readonly int outcome


@cython.final
cdef class DrainRequested(Event):
    cdef readonly long long limit_us


@cython.final
cdef class IdleHeld(Event):
    cdef readonly bint on
