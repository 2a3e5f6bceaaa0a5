"""On which invoker a container is created.  Pure: a view of the invokers in, names out.

Leaves out whether a container is wanted (``demand``) and whether the memory is really there:
the reservation transaction says so in the end.
"""

from __future__ import annotations


class InvokerView:
    """What placement looks at: free memory and the creations that the engine still has to do.

    Args:
      invoker: Its name.
      free_mb: Memory that no container holds, in MB; below 0 when others have overbooked it.
      creations: Creations in flight there.
      creation_us: Measured mean of an unloaded creation.
      creations_per_s: What its engine manages; 0.0 while unknown.
    """

    def __init__(
        self,
        invoker: str,
        free_mb: int,
        creations: int,
        creation_us: int,
        creations_per_s: float = 0.0,
    ) -> None:
        self.invoker = invoker
        self.free_mb = free_mb
        self.creations = creations
        self.creation_us = creation_us
        self.creations_per_s = creations_per_s

    def ready_us(self) -> int:
        """Return when a creation that is asked for now would be ready, in microseconds from now.

        The unloaded time, and behind the creations in flight at the engine's measured rate; an
        engine whose rate is unknown is taken to work them off one by one.
        """
        return ready_us(self.creations, self.creation_us, self.creations_per_s)


def ready_us(creations: int, creation_us: int, creations_per_s: float) -> int:
    """Return the same of an engine that has so many creations in flight."""
    if creations_per_s > 0.0:
        return creation_us + int(creations * 1_000_000 / creations_per_s)
    return creation_us * (creations + 1)


def place(invokers: list[InvokerView], memory_mb: int, count: int) -> list[str]:
    """Choose invokers for up to ``count`` containers of ``memory_mb``; fewer if there is no room.

    The invoker where the container would be ready first; among equals the one with the most
    free memory, then by name.  Each choice is charged to the view before the next, so a batch
    never overbooks an invoker.  Changes the views.

    Cost: O(count x invokers).
    """
    chosen: list[str] = []
    while len(chosen) < count:
        best = None
        for view in invokers:
            if view.free_mb >= memory_mb and (best is None or _rank(view) < _rank(best)):
                best = view
        if best is None:
            break
        best.free_mb -= memory_mb
        best.creations += 1
        chosen.append(best.invoker)
    return chosen


def _rank(view: InvokerView) -> tuple[int, int, str]:
    """Return what is smallest of the best place."""
    return view.ready_us(), -view.free_mb, view.invoker
