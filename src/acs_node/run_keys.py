"""Keys that functions call the API with: made for one activation, known to be its own.

Of a namespace's own key only a hash is kept, so it cannot be handed to a function; nor should
it be, for whoever reads a log would have it for ever.  A run key is valid until its activation
must have ended.  And it says who calls, and who waits for that one: a blocking invocation with it
is a nested call, whose callers hold containers meanwhile (``acs_core.nesting``).  So any controller
knows the whole chain, whichever of them the callers came to.

Pure: chance and time are told.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from acs_core.limits import CAUSES_MAX

SECRET_BYTES: Final = 32

_ID = "[0-9a-f]{32}"
_KEY = re.compile(rf"run-((?:{_ID}\.){{0,{CAUSES_MAX}}}{_ID})-([0-9a-f]{{12}})-({_ID})")


class RunKeys:
    """Makes and reads run keys; two with the same ``secret`` know each other's."""

    def __init__(self, secret: bytes) -> None:
        """Raises: ValueError for a secret that is too short."""
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"secret has {len(secret)} bytes; it must have {SECRET_BYTES}")
        self._secret = secret

    def key(
        self, uuid: str, activation_id: str, until_ms: int, causes: tuple[str, ...] = ()
    ) -> str:
        """Return the key of an activation for the credential ``uuid``.  About 3 us.

        ``causes`` are who waits for it, outermost first.
        """
        chain = ".".join((*causes, activation_id))
        return f"run-{chain}-{until_ms:012x}-{self._mark(uuid, chain, until_ms)}"

    def chain_of(self, uuid: str, key: str, now_ms: int) -> tuple[str, ...]:
        """Return who waits for the key's activation, and last that one itself.

        Empty if it is none of ours for ``uuid``, or its time is over.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            return ()
        chain, until_ms = parts[1], int(parts[2], 16)
        genuine = hmac.compare_digest(parts[3], self._mark(uuid, chain, until_ms))
        return tuple(chain.split(".")) if genuine and now_ms <= until_ms else ()

    def _mark(self, uuid: str, chain: str, until_ms: int) -> str:
        text = f"{uuid} {chain} {until_ms}".encode()
        return hmac.digest(self._secret, text, "sha256").hex()[:32]
