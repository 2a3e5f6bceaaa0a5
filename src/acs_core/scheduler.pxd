cimport cython

from acs_core.action_queue cimport ActionQueue, DeadlineIndex
from acs_core.events cimport Activation, Arrived, Completion, Pulled, QueueSpec
from acs_core.queue_states cimport QueueLife

cdef int _UNINITIALIZED
cdef int _RUNNING
cdef int _IDLE
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _ACTION_THROTTLED
cdef int _REMOVING
cdef int _APPLICATION_ERROR
cdef int _DURATION_SAMPLES
cdef long long _NEVER
cdef dict _HANDLERS


@cython.final
cdef class NamespaceEntry:
    cdef public Py_ssize_t containers_max
    cdef public dict in_progress
    cdef public dict serving
    cdef public Py_ssize_t queues
    cdef public Py_ssize_t reserving


@cython.final
cdef class QueueEntry:
    cdef public QueueSpec spec
    cdef public long long epoch
    cdef public NamespaceEntry namespace
    cdef public QueueLife life
    cdef public ActionQueue line
    cdef public dict in_progress
    cdef public dict serving
    cdef public dict leaving
    cdef public list open
    cdef public Py_ssize_t running
    cdef public dict adopting
    cdef public tuple reserving
    cdef public double mean_us
    cdef public double variance
    cdef public Py_ssize_t samples
    cdef public Py_ssize_t arrivals
    cdef public long long rate_since_us
    cdef public double rate_per_s
    cdef public long long decided_us
    cdef public object decision
    cdef public long long steady_since_us
    cdef public long long steady_ended
    cdef public long long runs_ended
    cdef public Py_ssize_t growth_containers
    cdef public double growth_rate_per_s
    cdef public long long retry_us
    cdef public Py_ssize_t failures
    cdef public bint final
    cdef public str cause
    cdef public long long quiet_since_us
    cdef public bint initialized


@cython.final
cdef class ContainerEntry:
    cdef public str container
    cdef public str invoker
    cdef public QueueEntry queue
    cdef public Py_ssize_t free
    cdef public bint stacked
    cdef public dict outstanding
    cdef public long long idle_since_us


@cython.final
cdef class InvokerEntry:
    cdef public object report
    cdef public dict containers
    cdef public long long used_mb
    cdef public Py_ssize_t creations


@cython.final
cdef class Scheduler:
    cdef readonly object config
    cdef long long _now_us
    cdef long long _serial
    cdef dict _queues
    cdef dict _containers
    cdef dict _activations
    cdef dict _namespaces
    cdef dict _invokers
    cdef DeadlineIndex _due
    cdef dict _starved
    cdef long long _accepted
    cdef long long _ended
    cdef long long _rejected
    cdef long long _forwarded
    cdef long long _wait_max_us
    cdef long long _decision_interval_us
    cdef long long _backlog_interval_us
    cdef long long _stale_us

    @cython.locals(out=list)
    cpdef list step(self, object event, long long now_us)
    @cython.locals(queue=QueueEntry, activation=Activation, state=int, container=ContainerEntry)
    cdef object _arrived(self, Arrived event, long long now_us, list out)
    @cython.locals(
        container=ContainerEntry, queue=QueueEntry, completion=Completion, activation=Activation,
        room=Py_ssize_t,
    )
    cdef object _pulled(self, Pulled event, long long now_us, list out)
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
    @cython.locals(delta=double, smoothed=Py_ssize_t)
    cdef object _ran(self, QueueEntry queue, Completion completion)
    @cython.locals(bound_us='long long')
    cdef long long _expires_us(self, Activation activation)
    cdef QueueEntry _entry(self, str queue)
    @cython.locals(due_us='long long')
    cdef object _consider(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(due_us='long long', grace_us='long long', head=Activation)
    cdef long long _next_look_us(self, QueueEntry queue, long long now_us)
    @cython.locals(key=str, known_us='long long')
    cdef object _wake(self, QueueEntry queue, long long due_us)
    cdef bint _is_quiet(self, QueueEntry queue) except -1
