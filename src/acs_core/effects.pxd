cimport cython

from acs_core.events cimport Activation, Event, QueueSpec


@cython.final
cdef class Place:
    cdef readonly str container
    cdef readonly str invoker


@cython.final
cdef class Reserve:
    cdef readonly str queue
    cdef readonly long long epoch
    cdef readonly long long serial
    cdef readonly str namespace
    cdef readonly long long memory_mb
    cdef readonly tuple places


@cython.final
cdef class Unreserve:
    cdef readonly str queue
    cdef readonly long long epoch
    cdef readonly tuple containers


@cython.final
cdef class Reject:
    cdef readonly Activation activation
    cdef readonly int cause
    cdef readonly str reason
    cdef readonly long long retry_after_us


@cython.final
cdef class Forward:
    cdef readonly str queue
    cdef readonly tuple activations
    cdef readonly str to


@cython.final
cdef class CloseQueue:
    cdef readonly str queue
    cdef readonly long long epoch


@cython.final
cdef class Throttle:
    cdef readonly str queue
    cdef readonly bint on
    cdef readonly str reason


@cython.final
cdef class Decided:
    cdef readonly str queue
    cdef readonly object snapshot
    cdef readonly object decision


@cython.final
cdef class Differed:
    cdef readonly str queue
    cdef readonly object snapshot
    cdef readonly object decision


@cython.final
cdef class Adopt(Event):
    cdef readonly str queue
    cdef readonly long long epoch
    cdef readonly str invoker


@cython.final
cdef class Create(Event):
    cdef readonly str container
    cdef readonly str invoker
    cdef readonly long long epoch
    cdef readonly QueueSpec spec
    cdef readonly bint keep


@cython.final
cdef class Deliver(Event):
    cdef readonly str container
    cdef readonly str invoker
    cdef readonly long long epoch
    cdef readonly Activation activation


@cython.final
cdef class Resume(Event):
    cdef readonly str container
    cdef readonly str invoker
    cdef readonly long long epoch


@cython.final
cdef class Release(Event):
    cdef readonly str container
    cdef readonly str invoker
    cdef readonly long long epoch
    cdef readonly str why


@cython.final
cdef class StartSandbox:
    cdef readonly str container
    cdef readonly QueueSpec spec


@cython.final
cdef class PrewarmSandbox:
    cdef readonly str container
    cdef readonly str kind
    cdef readonly long long memory_mb


@cython.final
cdef class AssignSandbox:
    cdef readonly str container
    cdef readonly str sandbox
    cdef readonly QueueSpec spec


@cython.final
cdef class PauseSandbox:
    cdef readonly str container


@cython.final
cdef class ResumeSandbox:
    cdef readonly str container


@cython.final
cdef class Initialise:
    cdef readonly str container
    cdef readonly Activation activation


@cython.final
cdef class Run:
    cdef readonly str container
    cdef readonly Activation activation
    cdef readonly long long init_us


@cython.final
cdef class Abort:
    cdef readonly str container
    cdef readonly str activation_id
    cdef readonly long long timeout_us
    cdef readonly bint drained


@cython.final
cdef class Remove:
    cdef readonly str container
    cdef readonly str cause
