"""The number of the layout that extensions are built against, and the check that they were.

Every ``.pxd`` of the core cimports this one, itself or through others, and an extension imports
the classes of what it cimports first of all, deepest first.  So one that was built against
another ABI, or against a compiled core where this one is plain, asks for a class here that there
is not, before it could read a field at a wrong offset, and gets an ImportError with both numbers.
(Cython itself compares the sizes of objects alone: methods that moved in a table would crash.)

To change the number, rename the class, here and in the ``.pxd``.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

COMPILED: Final = not __file__.endswith(".py")


class Abi4:
    """Stands for the layout; has no instances worth making."""


ABI: Final = int(Abi4.__name__.removeprefix("Abi"))


def __getattr__(name: str) -> NoReturn:
    asked = re.fullmatch("Abi([0-9]+)", name)
    if asked is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    if not COMPILED:
        raise ImportError(
            f"an extension was built against ABI {asked[1]} of the compiled acs_core, "
            f"but the one installed is plain Python: install the compiled wheel",
            name=__name__,
        )
    raise ImportError(
        f"an extension was built against ABI {asked[1]} of acs_core, "
        f"but the one installed has ABI {ABI}: build the extension again",
        name=__name__,
    )


if not COMPILED:  # pragma: no branch: coverage is measured on the plain build alone
    # Not with "del", which Cython refuses for a class that a .pxd declares.
    globals().pop(f"Abi{ABI}")
