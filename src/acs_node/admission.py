"""Whether a controller takes another invocation now, and the 503 that says what keeps it out."""

from __future__ import annotations

from typing import Final

from .activations import ActivationStore
from .errors import UNAVAILABLE_RETRY_S, ApiError, unavailable

__all__ = ["DISABLED", "STOPPING", "Admission"]

RESTART_S: Final = 5
"""When a caller may come back whom a node refused that stops: a restart takes seconds."""

STOPPING: Final = "It is stopping; another server, or this one once it has started, takes requests"

DISABLED: Final = "An operator has disabled it; another server, or its next start, takes requests"


class Admission:
    """``closed``: why nothing is accepted any more; empty: only a database that lags keeps out."""

    def __init__(self, activations: ActivationStore) -> None:
        self.closed = ""
        self._activations = activations

    def is_open(self) -> bool:
        """Tell whether an invocation may be taken.  Asked before each of them."""
        return not self.closed and self._activations.has_room()

    def refusal(self, pending: int) -> ApiError:
        """Return the 503 of a node that takes no work now, while so many have not ended."""
        if self.closed:
            ends = f"{pending} activations have to end first (new ones allowed: 0)"
            return unavailable(f"{self.closed}: {ends}.", RESTART_S)
        backlog = self._activations.backlog()
        return unavailable(f"{backlog}. It goes on when they are written.", UNAVAILABLE_RETRY_S)

    def not_accepted(self) -> ApiError:
        """Return the 503 of an activation whose accept row could not be written."""
        return unavailable(
            "The database does not take what would be accepted, so it is not;"
            f" {self._activations.backlog()}. The server's log has the cause,"
            " and it goes on when that is gone.",
            UNAVAILABLE_RETRY_S,
        )
