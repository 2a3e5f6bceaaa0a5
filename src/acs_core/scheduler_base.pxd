cimport cython

from acs_core.action_queue cimport ActivationTable, DeadlineIndex
from acs_core.snapshot cimport Snapshot
from acs_core.events cimport Activation, QueueSpec
from acs_core.forecast cimport Forecast
from acs_core.history cimport RunHistory
from acs_core.ledger cimport ContainerEntry, Ledger, NamespaceEntry, QueueEntry
from acs_core.load cimport QueueLoad
from acs_core.starving cimport Starving

cdef int _IDLE
cdef int _NAMESPACE_THROTTLED
cdef int _ACTION_THROTTLED
cdef int _REMOVING
cdef long long _NEVER
cdef int _LOOKS_MAX


cdef class SchedulerBase:
    cdef readonly object config
    cdef long long _now_us
    cdef long long _serial
    cdef Ledger _ledger
    cdef dict _queues
    cdef dict _containers
    cdef ActivationTable _activations
    cdef dict _namespaces
    cdef dict _invokers
    cdef DeadlineIndex _due
    cdef object _soon
    cdef Starving _starving
    cdef RunHistory _history
    cdef long long _accepted
    cdef long long _ended
    cdef long long _rejected
    cdef long long _forwarded
    cdef long long _wait_max_us
    cdef long long _decision_interval_us
    cdef long long _backlog_interval_us
    cdef long long _stale_us
    cdef object _calls
    cdef bint _throttle_by_wait
    cdef object _shadow
    cdef long long _shadow_stale_us
    cdef Py_ssize_t _scanned
    cdef dict _asking
    cdef dict _given_up
    cdef long long _reserve_answer_us
    cdef long long _create_answer_us

    cdef Forecast _foresee(self, QueueEntry queue, Snapshot snapshot, long long now_us)
    @cython.locals(bound_us='long long')
    cdef long long _expires_us(self, QueueEntry queue, Activation activation)
    cdef QueueEntry _entry(self, str queue)
    @cython.locals(
        due_us='long long', grace_us='long long', head=Activation, oldest=ContainerEntry,
    )
    cdef long long _next_look_us(self, QueueEntry queue, long long now_us)
    @cython.locals(key=str, known_us='long long')
    cdef object _wake(self, QueueEntry queue, long long due_us)
    cdef bint _is_quiet(self, QueueEntry queue) except -1
    @cython.locals(
        namespace=NamespaceEntry, spec=QueueSpec, load=QueueLoad, known=bint,
        oldest_us='long long', activation=Activation, container=ContainerEntry,
    )
    cdef Snapshot _snapshot(self, QueueEntry queue, long long creation_us, long long now_us)
    cdef bint _sees_to_floor(self, QueueEntry queue) except -1
