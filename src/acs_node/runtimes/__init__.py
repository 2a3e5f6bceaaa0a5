"""The action proxies: programs that run inside of containers, and what starts them outside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from acs_node.sandboxes import SandboxError

PYTHON_PROXY: Final = Path(__file__).parent / "python" / "proxy.py"
PYTHON_TEMPLATE: Final = PYTHON_PROXY.with_name("template.py")
NODEJS_PROXY: Final = Path(__file__).parent / "nodejs" / "proxy.js"


def find_node() -> str:
    """Return the node of this machine.  Raises: SandboxError (final) where there is none."""
    found = shutil.which("node")
    if found is None:
        raise SandboxError("there is no node in PATH; install Node.js 18 or later", final=True)
    return found
