"""How long the runs of actions took, beyond the life of their queues.

A queue that opens begins with the mean run of the queue that its action had before, in this
revision or the last.  For an action that nobody knows, ``typical_us`` says what others of its
namespace take: a guess, by which ``demand`` may create and nobody is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from . import limits
from .load import QueueLoad


class RunHistory:
    """The last ``HISTORY_MAX`` actions that had a queue; the one that opened first goes first."""

    def __init__(self) -> None:
        # By namespace and action, for their age; then by namespace, each in the order of opening.
        self._loads: OrderedDict[tuple[str, str], QueueLoad] = OrderedDict()
        self._namespaces: dict[str, OrderedDict[str, QueueLoad]] = {}

    def open(self, namespace: str, action: str, now_us: int, history_us: int) -> QueueLoad:
        """Return the load of a queue that opens; ``history_us`` > 0 goes before what is known here.

        Cost: O(1).
        """
        key = (namespace, action)
        before = self._loads.get(key)
        if history_us == 0 and before is not None and before.samples > 0:
            history_us = max(1, int(before.mean_us))
        load = QueueLoad(now_us, history_us)
        if history_us == 0:
            load.typical_us = self.typical_us(namespace)
        actions = self._namespaces.setdefault(namespace, OrderedDict())
        self._loads[key] = actions[action] = load
        self._loads.move_to_end(key)
        actions.move_to_end(action)
        if len(self._loads) > limits.HISTORY_MAX:
            (namespace, action), _ = self._loads.popitem(last=False)
            del self._namespaces[namespace][action]
            if not self._namespaces[namespace]:
                del self._namespaces[namespace]
        return load

    def typical_us(self, namespace: str) -> int:
        """Return the median of the mean runs of the actions that opened last; 0 of too few.

        Cost: O(1), ``TYPICAL_ACTIONS`` at most are looked at.
        """
        actions = self._namespaces.get(namespace)
        if actions is None:
            return 0
        newest = islice(reversed(actions.values()), limits.TYPICAL_ACTIONS)
        known = sorted([load.mean_us for load in newest if load.samples > 0])
        if len(known) < limits.TYPICAL_KNOWN_MIN:
            return 0
        return int(known[len(known) // 2])
