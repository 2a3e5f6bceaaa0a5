cimport cython

from acs_core.action_queue cimport ActionQueue
from acs_core.events cimport InvokerReported, QueueSpec
from acs_core.forecast cimport Forecast
from acs_core.load cimport QueueLoad
from acs_core.placement cimport InvokerView, ready_us
from acs_core.queue_states cimport QueueLife


@cython.final
cdef class NamespaceEntry:
    cdef public Py_ssize_t containers_max
    cdef public dict in_progress
    cdef public dict serving
    cdef public Py_ssize_t queues
    cdef public Py_ssize_t reserving
    cdef public double weight
    cdef public Py_ssize_t reserve
    cdef public dict levels
    @cython.locals(
        held=Py_ssize_t, spare=Py_ssize_t, shared=Py_ssize_t, room=Py_ssize_t, level=Py_ssize_t,
        above=Py_ssize_t,
    )
    cpdef Py_ssize_t room(self, Py_ssize_t depth=*) except? -1
    cpdef Py_ssize_t held(self) except -1
    cpdef Py_ssize_t spare(self) except -1


@cython.final
cdef class QueueEntry:
    cdef public QueueSpec spec
    cdef public long long epoch
    cdef public NamespaceEntry namespace
    cdef public QueueLoad load
    cdef public QueueLife life
    cdef public ActionQueue line
    cdef public dict in_progress
    cdef public dict serving
    cdef public dict leaving
    cdef public list open
    cdef public dict delivered
    cdef public dict adopting
    cdef public tuple reserving
    cdef public long long decided_us
    cdef public object decision
    cdef public long long retry_us
    cdef public Py_ssize_t failures
    cdef public bint final
    cdef public object hopeless
    cdef public str cause
    cdef public long long quiet_since_us
    cdef public bint initialized
    cdef public dict paused
    cdef public list open_to_calls
    cdef public Py_ssize_t reserving_level
    cdef public Forecast forecast
    cdef public object shadow
    cdef public long long reserving_serial
    cdef public bint soon
    cdef public dict kept
    cdef public long long floor_us
    cdef public long long asked_us
    cdef public long long wait_max_us
    cpdef Py_ssize_t floor_lacks(self) except? -1


@cython.final
cdef class ContainerEntry:
    cdef public str container
    cdef public str invoker
    cdef public QueueEntry queue
    cdef public Py_ssize_t free
    cdef public bint stacked
    cdef public dict outstanding
    cdef public long long idle_since_us
    cdef public long long serving_since_us
    cdef public bint resuming
    cdef public bint leaving
    cdef public Py_ssize_t level
    cdef public bint keep
    cdef public long long entered_us


@cython.final
cdef class InvokerEntry:
    cdef public object report
    cdef public dict containers
    cdef public long long used_mb
    cdef public Py_ssize_t creations
    cdef public dict unheard
    cdef public dict unasked


@cython.final
cdef class Ledger:
    cdef readonly dict queues
    cdef readonly dict containers
    cdef readonly dict namespaces
    cdef readonly dict invokers
    cdef readonly dict reserving

    # Over all invokers, at each look at a queue.
    @cython.locals(
        entry=InvokerEntry, report=InvokerReported, free_mb='long long', creation_us='long long',
    )
    cpdef list views(self, str queue=*)
    @cython.locals(
        entry=InvokerEntry, report=InvokerReported, least_us='long long', there_us='long long',
        created_us='long long',
    )
    cpdef object creation_us(self)
    @cython.locals(
        entry=InvokerEntry, report=InvokerReported, largest_mb='long long', there_mb='long long',
        number=Py_ssize_t,
    )
    cpdef object largest_mb(self)
