"""The template of the process sandbox: an interpreter with the proxy loaded, which is forked.

A forked proxy shares the pages of its template, so that many of them fit into the caches of a
processor: with sixteen that take turns on one, a run costs half of what it costs in proxies that
were started one by one (docs/performance.md).  And it is there in 2 ms instead of 20.

``python3 -I -B -S -X utf8 template.py PROXY``, standard input being a Unix socket of packets.
Each packet of the host is a JSON object and gets one in answer:

{"fork": FOLDER, "work": FOLDER, "environment": {...}}  ->  {"pid": number}
        A child in a session of its own runs the proxy in FOLDER, whose FIFOs exist.
{"ended": pid, "reap": bool}  ->  {"status": waitid's si_status, "signal": bool}, or {}: it runs.
        With ``reap`` its end is waited for, and its number set free.

Anything that fails is answered with {"error": text}.  A child that ended stays a zombie until it
is reaped, and its number is nobody else's until then.  The template ends when the host closes
the socket; the children have their own leash.
"""

from __future__ import annotations

import _ctypes
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

PACKET_BYTES_MAX = 128 * 1024


def load(path: str) -> ModuleType:
    """Return the proxy as a module; it is what ``__main__`` means from now on."""
    proxy = type(sys)("proxy")
    proxy.__file__ = path
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, proxy.__dict__)
    proxy.__name__ = "__main__"
    sys.modules["__main__"] = proxy
    return proxy


def environment_block() -> memoryview:
    """Return the memory in which others find the environment: /proc/PID/environ reads it."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])

    class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "B"

    class Block(_ctypes.Array):  # type: ignore[type-arg]
        _type_ = Byte
        _length_ = end - start

    return memoryview(Block.from_address(start)).cast("B")


def become(proxy: ModuleType, block: memoryview, request: dict[str, Any]) -> None:
    """In the child: be what a program started in this folder, with this environment, would be."""
    folder = request["fork"]
    for name, fd in (("stdout", 1), ("stderr", 2)):  # first, so that a failure is said there
        fifo = os.open(folder + "/" + name, os.O_WRONLY)
        os.dup2(fifo, fd)
        os.close(fifo)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.setsid()
    os.chdir(request["work"])
    environment = request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    # After that, since the C library's variables stood in this memory until now.  HOME first, in
    # case not all of it has room: by HOME the host finds what has left its process group.
    shown = sorted(environment.items(), key=lambda variable: variable[0] != "HOME")
    text = "".join(f"{name}={value}\0" for name, value in shown)
    data = os.fsencode(text)[: len(block) - 1]
    block[:] = data + bytes(len(block) - len(data))
    sys.argv = [sys.argv[1], folder]
    proxy.main(folder)


def fork(proxy: ModuleType, block: memoryview, request: dict[str, Any]) -> int:
    """Fork a proxy and return its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        become(proxy, block, request)
    except BaseException as error:
        sys.__excepthook__(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        os._exit(1)


def answer(proxy: ModuleType, block: memoryview, request: dict[str, Any]) -> dict[str, object]:
    """Do what the host asks and return what it is told."""
    if "fork" in request:
        return {"pid": fork(proxy, block, request)}
    pid = request["ended"]
    flags = os.WEXITED | (0 if request["reap"] else os.WNOHANG | os.WNOWAIT)
    ended = os.waitid(os.P_PID, pid, flags)
    if ended is None:
        return {}
    return {"status": ended.si_status, "signal": ended.si_code != os.CLD_EXITED}


def main() -> None:
    """Serve the host on fd 0 until it is gone."""
    proxy = load(sys.argv[1])
    block = environment_block()
    # What is there stays where it is: a collection in a child would write to every object, and
    # so copy the pages that it shares.
    gc.collect()
    gc.freeze()
    os.write(0, b"{}")
    while packet := os.read(0, PACKET_BYTES_MAX):
        try:
            said = answer(proxy, block, proxy.loads(packet))
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        os.write(0, proxy.dumps(said))


if __name__ == "__main__":
    main()
