cimport cython

from acs_core.action_queue cimport ActivationTable, DeadlineIndex
from acs_core.demand cimport Decision, Snapshot
from acs_core.events cimport Activation, Arrived, Completion, Pulled, QueueSpec
from acs_core.forecast cimport Forecast
from acs_core.ledger cimport ContainerEntry, Ledger, NamespaceEntry, QueueEntry
from acs_core.load cimport QueueLoad

cdef int _UNINITIALIZED
cdef int _RUNNING
cdef int _IDLE
cdef int _FLUSHING
cdef int _NAMESPACE_THROTTLED
cdef int _ACTION_THROTTLED
cdef int _REMOVING
cdef int _APPLICATION_ERROR
cdef long long _NEVER
cdef int _LOOKS_MAX
cdef long long _RESUME_US
cdef dict _HANDLERS
cdef bint _may_go(ContainerEntry container, bint spares_floors) except -1


@cython.final
cdef class Scheduler:
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
    cdef object _starving
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

    @cython.locals(out=list)
    cpdef list step(self, object event, long long now_us)
    @cython.locals(due_us='long long')
    cpdef object next_deadline_us(self)
    @cython.locals(
        queue=QueueEntry, activation=Activation, state=int, container=ContainerEntry,
        forecast=Forecast,
    )
    cdef object _arrived(self, Arrived event, long long now_us, list out)
    @cython.locals(
        container=ContainerEntry, queue=QueueEntry, completion=Completion, activation=Activation,
        room=Py_ssize_t,
    )
    cdef object _pulled(self, Pulled event, long long now_us, list out)
    @cython.locals(
        forecast=Forecast, snapshot=Snapshot, waiting=Py_ssize_t, within_us='long long')
    cdef bint _refuse_late(
        self, QueueEntry queue, Activation activation, long long now_us, list out
    ) except -1
    cdef Forecast _foresee(self, QueueEntry queue, Snapshot snapshot, long long now_us)
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
    @cython.locals(bound_us='long long')
    cdef long long _expires_us(self, Activation activation)
    cdef QueueEntry _entry(self, str queue)
    @cython.locals(due_us='long long')
    cdef object _consider(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(
        due_us='long long', grace_us='long long', head=Activation, oldest=ContainerEntry,
    )
    cdef long long _next_look_us(self, QueueEntry queue, long long now_us)
    @cython.locals(key=str, known_us='long long')
    cdef object _wake(self, QueueEntry queue, long long due_us)
    cdef bint _is_quiet(self, QueueEntry queue) except -1
    cdef object _settle(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(
        state=int, creation_us='long long', lacks_place=bint, lacks_memory=bint, snapshot=Snapshot, decision=Decision,
        containers=Py_ssize_t,
    )
    cdef object _decide(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(
        namespace=NamespaceEntry, spec=QueueSpec, load=QueueLoad, known=bint,
        oldest_us='long long', activation=Activation, container=ContainerEntry,
    )
    cdef Snapshot _snapshot(self, QueueEntry queue, long long creation_us, long long now_us)
    @cython.locals(head=Activation, key=str, state=int, grace_us='long long')
    cdef object _look(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(container=ContainerEntry, head=Activation, wanted=Py_ssize_t, asleep=list)
    cdef object _resume_paused(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(
        level=Py_ssize_t, wanted='long long', containers=dict, container=ContainerEntry,
        other=QueueEntry, calls=bint, idle=list,
    )
    cdef object _make_room(
        self, QueueEntry queue, Py_ssize_t count, bint in_namespace, bint give_back,
        long long now_us, list out)
    @cython.locals(
        where=dict, holders=dict, container=ContainerEntry, other=QueueEntry, there=Py_ssize_t,
        turn_us='long long', holder_count=Py_ssize_t, totals=dict, richest=dict, longest=dict,
        namespace=str, name=str, containers=Py_ssize_t, spares_floors=bint,
    )
    cdef object _give_back(self, QueueEntry queue, bint in_namespace, long long now_us, list out)
    cdef Py_ssize_t _there(self, QueueEntry queue) except? -1
    @cython.locals(container=ContainerEntry)
    cdef long long _turn_us(self, QueueEntry queue, bint spares_floors, long long now_us)
    cdef bint _sees_to_floor(self, QueueEntry queue) except -1
    @cython.locals(lacks=Py_ssize_t, container=ContainerEntry)
    cdef object _keep_floor(self, QueueEntry queue, long long now_us, list out)
    @cython.locals(container=ContainerEntry)
    cdef bint _can_give(self, QueueEntry queue, bint spares_floors) except -1
