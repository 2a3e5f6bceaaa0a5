from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    CONTROLLER: _ClassVar[Role]
    SCHEDULER: _ClassVar[Role]
    INVOKER: _ClassVar[Role]

class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUEUE_FULL: _ClassVar[Cause]
    EXPIRED: _ClassVar[Cause]
    CREATION_FAILED: _ClassVar[Cause]
    CLOSED: _ClassVar[Cause]
    CANCELLED: _ClassVar[Cause]
    UNKNOWN: _ClassVar[Cause]
    NO_CONTAINER: _ClassVar[Cause]
    CALLERS_HOLD: _ClassVar[Cause]
    WOULD_EXPIRE: _ClassVar[Cause]
    UNFIT: _ClassVar[Cause]
ROLE_UNSPECIFIED: Role
CONTROLLER: Role
SCHEDULER: Role
INVOKER: Role
QUEUE_FULL: Cause
EXPIRED: Cause
CREATION_FAILED: Cause
CLOSED: Cause
CANCELLED: Cause
UNKNOWN: Cause
NO_CONTAINER: Cause
CALLERS_HOLD: Cause
WOULD_EXPIRE: Cause
UNFIT: Cause

class Frame(_message.Message):
    __slots__ = ("hello", "first", "messages", "received", "sent_us", "refusal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    first: int
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    received: int
    sent_us: int
    refusal: Refusal
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., first: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., received: _Optional[int] = ..., sent_us: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("gone", "reason")
    GONE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    gone: bool
    reason: str
    def __init__(self, gone: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "role", "name", "instance", "to_instance", "clock", "received", "oldest")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TO_INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    role: Role
    name: str
    instance: str
    to_instance: str
    clock: str
    received: int
    oldest: int
    def __init__(self, protocol: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., name: _Optional[str] = ..., instance: _Optional[str] = ..., to_instance: _Optional[str] = ..., clock: _Optional[str] = ..., received: _Optional[int] = ..., oldest: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("submit", "cancel", "close", "inquiry", "reject", "throttle", "queue_closed", "misdirected", "not_held", "adopt", "create", "deliver", "resume", "release", "invoker_reported", "adopted", "container_serving", "creation_failed", "pulled", "returned", "container_paused", "container_leaving", "container_gone", "result", "logs", "action_wanted", "fenced", "drained", "action_found", "fence")
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    INQUIRY_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_CLOSED_FIELD_NUMBER: _ClassVar[int]
    MISDIRECTED_FIELD_NUMBER: _ClassVar[int]
    NOT_HELD_FIELD_NUMBER: _ClassVar[int]
    ADOPT_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    DELIVER_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    INVOKER_REPORTED_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_SERVING_FIELD_NUMBER: _ClassVar[int]
    CREATION_FAILED_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_PAUSED_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_LEAVING_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_GONE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    ACTION_WANTED_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FOUND_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    submit: Submit
    cancel: Cancel
    close: Close
    inquiry: Inquiry
    reject: Reject
    throttle: Throttle
    queue_closed: QueueClosed
    misdirected: Misdirected
    not_held: NotHeld
    adopt: Adopt
    create: Create
    deliver: Deliver
    resume: Resume
    release: Release
    invoker_reported: InvokerReported
    adopted: Adopted
    container_serving: ContainerServing
    creation_failed: CreationFailed
    pulled: Pulled
    returned: Returned
    container_paused: ContainerPaused
    container_leaving: ContainerLeaving
    container_gone: ContainerGone
    result: Result
    logs: Logs
    action_wanted: ActionWanted
    fenced: Fenced
    drained: Drained
    action_found: ActionFound
    fence: Fence
    def __init__(self, submit: _Optional[_Union[Submit, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., inquiry: _Optional[_Union[Inquiry, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., throttle: _Optional[_Union[Throttle, _Mapping]] = ..., queue_closed: _Optional[_Union[QueueClosed, _Mapping]] = ..., misdirected: _Optional[_Union[Misdirected, _Mapping]] = ..., not_held: _Optional[_Union[NotHeld, _Mapping]] = ..., adopt: _Optional[_Union[Adopt, _Mapping]] = ..., create: _Optional[_Union[Create, _Mapping]] = ..., deliver: _Optional[_Union[Deliver, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., invoker_reported: _Optional[_Union[InvokerReported, _Mapping]] = ..., adopted: _Optional[_Union[Adopted, _Mapping]] = ..., container_serving: _Optional[_Union[ContainerServing, _Mapping]] = ..., creation_failed: _Optional[_Union[CreationFailed, _Mapping]] = ..., pulled: _Optional[_Union[Pulled, _Mapping]] = ..., returned: _Optional[_Union[Returned, _Mapping]] = ..., container_paused: _Optional[_Union[ContainerPaused, _Mapping]] = ..., container_leaving: _Optional[_Union[ContainerLeaving, _Mapping]] = ..., container_gone: _Optional[_Union[ContainerGone, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., logs: _Optional[_Union[Logs, _Mapping]] = ..., action_wanted: _Optional[_Union[ActionWanted, _Mapping]] = ..., fenced: _Optional[_Union[Fenced, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., action_found: _Optional[_Union[ActionFound, _Mapping]] = ..., fence: _Optional[_Union[Fence, _Mapping]] = ...) -> None: ...

class QueueSpec(_message.Message):
    __slots__ = ("queue", "namespace", "action", "revision", "memory_mb", "concurrency", "timeout_us", "action_limit", "kind", "containers_min", "wait_target_us", "wait_max_us")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    ACTION_LIMIT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_MIN_FIELD_NUMBER: _ClassVar[int]
    WAIT_TARGET_US_FIELD_NUMBER: _ClassVar[int]
    WAIT_MAX_US_FIELD_NUMBER: _ClassVar[int]
    queue: str
    namespace: str
    action: str
    revision: int
    memory_mb: int
    concurrency: int
    timeout_us: int
    action_limit: int
    kind: str
    containers_min: int
    wait_target_us: int
    wait_max_us: int
    def __init__(self, queue: _Optional[str] = ..., namespace: _Optional[str] = ..., action: _Optional[str] = ..., revision: _Optional[int] = ..., memory_mb: _Optional[int] = ..., concurrency: _Optional[int] = ..., timeout_us: _Optional[int] = ..., action_limit: _Optional[int] = ..., kind: _Optional[str] = ..., containers_min: _Optional[int] = ..., wait_target_us: _Optional[int] = ..., wait_max_us: _Optional[int] = ...) -> None: ...

class Activation(_message.Message):
    __slots__ = ("activation_id", "payload", "arrived_us", "deadline_us", "causes")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_US_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    payload: bytes
    arrived_us: int
    deadline_us: int
    causes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, activation_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., arrived_us: _Optional[int] = ..., deadline_us: _Optional[int] = ..., causes: _Optional[_Iterable[str]] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("spec", "activation")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    spec: QueueSpec
    activation: Activation
    def __init__(self, spec: _Optional[_Union[QueueSpec, _Mapping]] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("activation_id",)
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    def __init__(self, activation_id: _Optional[str] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("queue", "why")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    why: str
    def __init__(self, queue: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("activation_id", "cause", "reason", "retry_after_us")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_US_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    cause: Cause
    reason: str
    retry_after_us: int
    def __init__(self, activation_id: _Optional[str] = ..., cause: _Optional[_Union[Cause, str]] = ..., reason: _Optional[str] = ..., retry_after_us: _Optional[int] = ...) -> None: ...

class Throttle(_message.Message):
    __slots__ = ("queue", "on", "reason")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    queue: str
    on: bool
    reason: str
    def __init__(self, queue: _Optional[str] = ..., on: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class QueueClosed(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class Misdirected(_message.Message):
    __slots__ = ("activation_id", "queue", "leader")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    queue: str
    leader: str
    def __init__(self, activation_id: _Optional[str] = ..., queue: _Optional[str] = ..., leader: _Optional[str] = ...) -> None: ...

class Adopt(_message.Message):
    __slots__ = ("queue", "epoch", "invoker")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    epoch: int
    invoker: str
    def __init__(self, queue: _Optional[str] = ..., epoch: _Optional[int] = ..., invoker: _Optional[str] = ...) -> None: ...

class Create(_message.Message):
    __slots__ = ("container", "invoker", "epoch", "spec", "keep")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    container: str
    invoker: str
    epoch: int
    spec: QueueSpec
    keep: bool
    def __init__(self, container: _Optional[str] = ..., invoker: _Optional[str] = ..., epoch: _Optional[int] = ..., spec: _Optional[_Union[QueueSpec, _Mapping]] = ..., keep: _Optional[bool] = ...) -> None: ...

class Deliver(_message.Message):
    __slots__ = ("container", "invoker", "epoch", "activation")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    container: str
    invoker: str
    epoch: int
    activation: Activation
    def __init__(self, container: _Optional[str] = ..., invoker: _Optional[str] = ..., epoch: _Optional[int] = ..., activation: _Optional[_Union[Activation, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("container", "invoker", "epoch")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    container: str
    invoker: str
    epoch: int
    def __init__(self, container: _Optional[str] = ..., invoker: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("container", "invoker", "epoch", "why")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    container: str
    invoker: str
    epoch: int
    why: str
    def __init__(self, container: _Optional[str] = ..., invoker: _Optional[str] = ..., epoch: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class InvokerReported(_message.Message):
    __slots__ = ("invoker", "memory_mb", "elsewhere_mb", "creation_us", "creations_per_s")
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_MB_FIELD_NUMBER: _ClassVar[int]
    CREATION_US_FIELD_NUMBER: _ClassVar[int]
    CREATIONS_PER_S_FIELD_NUMBER: _ClassVar[int]
    invoker: str
    memory_mb: int
    elsewhere_mb: int
    creation_us: int
    creations_per_s: float
    def __init__(self, invoker: _Optional[str] = ..., memory_mb: _Optional[int] = ..., elsewhere_mb: _Optional[int] = ..., creation_us: _Optional[int] = ..., creations_per_s: _Optional[float] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("container", "serving", "activation_ids", "keep")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_IDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    container: str
    serving: bool
    activation_ids: _containers.RepeatedScalarFieldContainer[str]
    keep: bool
    def __init__(self, container: _Optional[str] = ..., serving: _Optional[bool] = ..., activation_ids: _Optional[_Iterable[str]] = ..., keep: _Optional[bool] = ...) -> None: ...

class Adopted(_message.Message):
    __slots__ = ("invoker", "queue", "epoch", "held")
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    invoker: str
    queue: str
    epoch: int
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, invoker: _Optional[str] = ..., queue: _Optional[str] = ..., epoch: _Optional[int] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class ContainerServing(_message.Message):
    __slots__ = ("container", "invoker")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    container: str
    invoker: str
    def __init__(self, container: _Optional[str] = ..., invoker: _Optional[str] = ...) -> None: ...

class CreationFailed(_message.Message):
    __slots__ = ("container", "failure", "cause")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    container: str
    failure: int
    cause: str
    def __init__(self, container: _Optional[str] = ..., failure: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("activation_id", "init_us", "run_us", "outcome")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    INIT_US_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    init_us: int
    run_us: int
    outcome: int
    def __init__(self, activation_id: _Optional[str] = ..., init_us: _Optional[int] = ..., run_us: _Optional[int] = ..., outcome: _Optional[int] = ...) -> None: ...

class Pulled(_message.Message):
    __slots__ = ("container", "epoch", "free_slots", "started", "completions")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FREE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    container: str
    epoch: int
    free_slots: int
    started: _containers.RepeatedScalarFieldContainer[str]
    completions: _containers.RepeatedCompositeFieldContainer[Completion]
    def __init__(self, container: _Optional[str] = ..., epoch: _Optional[int] = ..., free_slots: _Optional[int] = ..., started: _Optional[_Iterable[str]] = ..., completions: _Optional[_Iterable[_Union[Completion, _Mapping]]] = ...) -> None: ...

class Returned(_message.Message):
    __slots__ = ("container", "epoch", "activation_ids")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_IDS_FIELD_NUMBER: _ClassVar[int]
    container: str
    epoch: int
    activation_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, container: _Optional[str] = ..., epoch: _Optional[int] = ..., activation_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ContainerPaused(_message.Message):
    __slots__ = ("container",)
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    container: str
    def __init__(self, container: _Optional[str] = ...) -> None: ...

class ContainerLeaving(_message.Message):
    __slots__ = ("container", "cause")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    container: str
    cause: str
    def __init__(self, container: _Optional[str] = ..., cause: _Optional[str] = ...) -> None: ...

class ContainerGone(_message.Message):
    __slots__ = ("container", "cause")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    container: str
    cause: str
    def __init__(self, container: _Optional[str] = ..., cause: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("activation_id", "outcome", "response", "start_ms", "wait_us", "init_us", "duration_us", "timed_out", "logs_follow")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_US_FIELD_NUMBER: _ClassVar[int]
    INIT_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    LOGS_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    outcome: int
    response: bytes
    start_ms: int
    wait_us: int
    init_us: int
    duration_us: int
    timed_out: bool
    logs_follow: bool
    def __init__(self, activation_id: _Optional[str] = ..., outcome: _Optional[int] = ..., response: _Optional[bytes] = ..., start_ms: _Optional[int] = ..., wait_us: _Optional[int] = ..., init_us: _Optional[int] = ..., duration_us: _Optional[int] = ..., timed_out: _Optional[bool] = ..., logs_follow: _Optional[bool] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("activation_id", "lines")
    ACTIVATION_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    activation_id: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, activation_id: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class Logs(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Log]
    def __init__(self, entries: _Optional[_Iterable[_Union[Log, _Mapping]]] = ...) -> None: ...

class ActionWanted(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class ActionFound(_message.Message):
    __slots__ = ("queue", "document", "revision", "error")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    queue: str
    document: bytes
    revision: int
    error: str
    def __init__(self, queue: _Optional[str] = ..., document: _Optional[bytes] = ..., revision: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Drained(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Inquiry(_message.Message):
    __slots__ = ("activation_ids",)
    ACTIVATION_IDS_FIELD_NUMBER: _ClassVar[int]
    activation_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, activation_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class NotHeld(_message.Message):
    __slots__ = ("activation_ids",)
    ACTIVATION_IDS_FIELD_NUMBER: _ClassVar[int]
    activation_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, activation_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("scheduler", "activation_ids")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_IDS_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    activation_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scheduler: _Optional[str] = ..., activation_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("scheduler", "known")
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    scheduler: str
    known: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scheduler: _Optional[str] = ..., known: _Optional[_Iterable[str]] = ...) -> None: ...
