"""Calls: activations made inside others, which hold their containers until the call has ended.

A call's ``causes`` are the activations that wait for it, outermost first; its depth is their
number.  Holds what makes calls end although their callers hold containers:

- ``Calls``, which calls wait and who waits for them;
- ``victim``, which call must be given up because it waits for what only its own end, or that of
  others like it, could set free.

The places that are kept for calls are counted in ``ledger`` (``NamespaceEntry.room``), the order
in which calls are served in ``action_queue``.

**The reserve.**  A container has a level, and serves only activations of that depth or more.  With
a cap of n containers and a reserve of r, at most n - r + k of them have a level up to k.  When all
that runs waits for calls, the deepest of it has some depth D, and sits in containers up to level
D; so either one more of level D + 1 may be had, or one up to there does nothing and can go.  Calls
up to depth r are therefore served whatever else the namespace runs, as long as the cap, and not
the action's own limit or the invokers' memory, is what binds.  No memory is kept for calls: it is
shared by all namespaces, and containers differ in size.  Who wants the promise sets caps that the
invokers can hold.

Invariants: N1-N4 (docs/invariants.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Activation
    from .ledger import ContainerEntry, Ledger, QueueEntry


class Calls:
    """The calls that wait in any queue of a scheduler, and who waits for them.

    ``waiting`` has them by id, ``below`` how many wait for the end of each activation's calls,
    directly or through others.  Cost of each method: O(depth of the call).
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Activation] = {}
        self.below: dict[str, int] = {}

    def enter(self, call: Activation) -> None:
        """Note a call that begins to wait."""
        self.waiting[call.activation_id] = call
        for cause in call.causes:
            self.below[cause] = self.below.get(cause, 0) + 1

    def leave(self, call: Activation) -> None:
        """Forget a call that waits no longer."""
        del self.waiting[call.activation_id]
        for cause in call.causes:
            if self.below[cause] == 1:
                del self.below[cause]
            else:
                self.below[cause] -= 1

    def hold(self, container: ContainerEntry) -> bool:
        """Tell whether something in the container waits for a call that waits."""
        return any(name in self.below for name in container.outstanding)

    def check(self) -> None:
        """Assert that both views agree.  Cost: O(calls)."""
        below: dict[str, int] = {}
        for name, call in self.waiting.items():
            assert name == call.activation_id
            for cause in call.causes:
                below[cause] = below.get(cause, 0) + 1
        assert below == self.below


def victim(ledger: Ledger, calls: Calls, call: Activation) -> Activation | None:
    """Return the call to reject so that this one may be served; None when it will be, as it is.

    The call itself, unless the reserve promises it a container: then the newest of those that are
    stuck with it and too deep to have that promise.

    All waiting calls are taken to be stuck, with everything that waits for them; then those are
    let off that could get a container all the same, until no more can.

    Cost: O(containers) where the first look finds one; else O(kinds x (containers + calls)) for
    each time that some are let off; kinds of (queue, depth) among the calls that wait.
    """
    if _can_be_served(ledger, calls.below, call):
        return None
    stuck = dict(calls.waiting)
    while call.activation_id in stuck:
        holding: dict[str, int] = {}
        for other in stuck.values():
            holding.update(dict.fromkeys(other.causes, 1))
        kinds = {(other.queue, len(other.causes)): other for other in stuck.values()}
        served = {kind for kind, other in kinds.items() if _can_be_served(ledger, holding, other)}
        if not served:
            return _least_entitled(ledger, list(stuck.values()), call)
        stuck = {n: o for n, o in stuck.items() if (o.queue, len(o.causes)) not in served}
    return None


def why_stuck(ledger: Ledger, call: Activation) -> str:
    """Return the reason of a rejection, with the chain of causes and where each runs.

    Cost: O(containers of the queues in the chain).
    """
    chain = " > ".join([*call.causes, call.activation_id])
    queue = ledger.queues[call.queue]
    namespace = queue.namespace
    return (
        f"Every container that {queue.spec.action} could get is held by activations that wait "
        f"for this call or for others like it: {chain}. Namespace {queue.spec.namespace} holds "
        f"{namespace.held()} containers (allowed: {namespace.containers_max}, of them for calls: "
        f"{namespace.spare()}); a larger cap or reserve, or more memory, would lift this"
    )


def _least_entitled(ledger: Ledger, stuck: list[Activation], call: Activation) -> Activation:
    for other in (call, *reversed(stuck)):
        if len(other.causes) > ledger.queues[other.queue].namespace.spare():
            return other
    return call


def _can_be_served(ledger: Ledger, holding: dict[str, int], call: Activation) -> bool:
    """Tell whether the call gets a container when all ends that is not in ``holding``."""
    queue = ledger.queues[call.queue]
    if queue.adopting or queue.in_progress or queue.reserving:
        return True
    depth = len(call.causes)
    own = 0
    for container in queue.serving.values():
        held = [name for name in container.outstanding if name in holding]
        leaving = container.container in queue.leaving
        if container.level <= depth and not leaving and len(held) < queue.spec.concurrency:
            return True
        own += bool(held)
    limit = queue.spec.action_limit
    if limit is not None and 0 < limit <= own:
        return False
    return not _cap_binds(queue, holding, depth) and not _memory_binds(ledger, queue, holding)


def _cap_binds(queue: QueueEntry, holding: dict[str, int], depth: int) -> bool:
    """Tell whether the namespace has no place for a container, whatever else goes."""
    namespace = queue.namespace
    if namespace.containers_max <= 0:
        return False  # not its callers are what keeps it from a container
    held = [c.level for c in namespace.serving.values() if _is_held(c, holding)]
    spare = namespace.spare()
    shared = namespace.containers_max - spare
    return any(
        sum([level <= k or k == spare for level in held]) >= shared + k
        for k in range(min(depth, spare), spare + 1)
    )


def _memory_binds(ledger: Ledger, queue: QueueEntry, holding: dict[str, int]) -> bool:
    """Tell whether no invoker has the memory for a container, whatever else goes."""
    memory_mb = queue.spec.memory_mb
    if memory_mb > ledger.largest_mb():
        return False  # not its callers are what keeps it from a container
    for invoker in ledger.invokers.values():
        held = [c for c in invoker.containers.values() if _is_held(c, holding)]
        held_mb = sum([container.queue.spec.memory_mb for container in held])
        if memory_mb <= invoker.report.memory_mb - held_mb:
            return False
    return True


def _is_held(container: ContainerEntry, holding: dict[str, int]) -> bool:
    return any(name in holding for name in container.outstanding)
