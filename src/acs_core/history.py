"""How long the runs of actions took, beyond the life of their queues.

A queue that opens again begins with the mean run that its revision had.  For one that is new there
are guesses: what the revision before it took, else what others of its namespace take
(``typical_us``).  By a guess ``demand`` may create, and nobody is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from . import limits
from .events import QueueSpec
from .load import QueueLoad


class RunHistory:
    """The last ``HISTORY_MAX`` actions that had a queue; the one that opened first goes first."""

    def __init__(self) -> None:
        # By namespace and action; and by namespace alone: each in the order of opening.
        self._opened: OrderedDict[tuple[str, str], int] = OrderedDict()  # the revision
        self._namespaces: dict[str, OrderedDict[str, QueueLoad]] = {}

    def open(self, spec: QueueSpec, now_us: int, history_us: int) -> QueueLoad:
        """Return the load of a queue that opens; ``history_us`` > 0 goes before what is known here.

        Cost: O(1).
        """
        key = (spec.namespace, spec.action)
        actions = self._namespaces.setdefault(spec.namespace, OrderedDict())
        before = actions.get(spec.action)
        guess_us = 0
        if before is not None:
            guess_us = before.typical_us
            if before.samples > 0:
                guess_us = max(1, int(before.mean_us))
                if history_us == 0 and self._opened[key] == spec.revision:
                    history_us = guess_us
        load = QueueLoad(now_us, history_us)
        if history_us == 0:
            load.typical_us = guess_us or self.typical_us(spec.namespace)
        self._opened[key] = spec.revision
        actions[spec.action] = load
        self._opened.move_to_end(key)
        actions.move_to_end(spec.action)
        if len(self._opened) > limits.HISTORY_MAX:
            (namespace, action), _ = self._opened.popitem(last=False)
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
