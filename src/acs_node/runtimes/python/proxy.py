"""The action proxy of the python kinds: one program, standard library only, python 3.9 or later.

Start-up contract
-----------------
``python3 -I -B -X utf8 [-S] proxy.py DIRECTORY``

-I      the interpreter obeys no PYTHON* variable, user folder or script folder, so nothing that
        the environment carries changes the proxy before the action's own code is loaded.
-B      a container loads each module once; writing byte code would be work for nobody.
-X utf8 text is UTF-8 whatever the locale of the image.
-S      only where the interpreter's site-packages are not meant for functions (the process
        sandbox, whose interpreter is the platform's own).  An image leaves it out, so that what
        was installed into the image with pip can be imported.

DIRECTORY is an absolute path to a folder in which the proxy may create a file.  Before the proxy
starts the host has made the FIFOs ``stdout`` and ``stderr`` in it and holds both open O_RDWR;
what the proxy inherits must not be open for reading on them (or step 5 has no meaning).
The working folder at start must be writable and the action's own: its code is put there.  It is
not DIRECTORY.  ``HOME`` and ``TMPDIR`` are the starter's to set.

1. The proxy opens DIRECTORY/stdout and DIRECTORY/stderr and dup2()s them over fd 1 and 2.
2. It listens on DIRECTORY/run.sock (mode 0666: the folder is what guards it).
3. It writes the line ``XXX_THE_ACTION_PROXY_LISTENS_XXX`` to the stdout FIFO: from then on
   connect() succeeds.  This is the readiness signal; ``LogPipes.ready()`` waits for it.
4. The first connection is the host's.  Nobody else may connect before it, and a trial
   connection is not possible: the proxy ends when the first connection closes.  No user code
   runs before the host has connected and sent /init.
5. Leash: the proxy exits, with status 0 and at once, even in the middle of a run, when the host's
   connection closes, or, before there is one, when nobody reads the FIFOs any more.
   Likewise when the host is silent.  DIRECTORY/leash, if it is there at the start, says for how
   many seconds it may be, and the host touches that file while it lives; a proxy that finds it
   unchanged LEASH_LOOKS times in a row, a part of that time after each other, ends.  It counts
   its own looks, so that one that was paused does not take its own silence for the host's.
6. Later connections get 403 answers, also while a function runs; they never run anything.
   Unless the function is an ``async def``: then the answer to /init says ``"concurrent":true``,
   and connections that come later are served as the first one, all in one event loop.

Protocol: HTTP/1.1 with Content-Length, POST /init once, then POST /run, one at a time.  A request
that cannot be framed ends the connection it came on.  Sentinels are written after every run and
after a failed init, before the answer is sent.  Functions run on the main thread, which also
serves the host's connection, so that no run pays for a hand-over between threads.

Limits of what is promised: a function can always ruin its own container (close the connection's
descriptor, leave an alarm running); the host then sees the connection close.
"""

# ruff: noqa: SIM105 - contextlib is one of the imports that start-up does without

from __future__ import annotations

# Each import here is paid by every cold start.  Not imported, though natural: socket (8 ms),
# json and re (8 ms), typing, threading; the C modules below are what those are built on.
import _socket
import _thread
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READY_LINE = b"XXX_THE_ACTION_PROXY_LISTENS_XXX\n"
SENTINEL_LINE = b"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n"

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024  # code of 48 MB, the largest that upstream takes, in JSON
UNPACKED_BYTES_MAX = 512 * 1024 * 1024  # of a zip archive, against one that only claims to be small
LEASH_LOOKS = 4  # for a sign of life within the time that the host may be silent
VISITORS_MAX = 16  # connections beside the host's; the oldest goes when one more comes
OVERLAPPING_MAX = 500  # connections that are served at once; below the open files of a container
READ_BYTES = 16 * 1024  # holds nearly every /run whole; larger costs an allocation per run


def reply(status: bytes, body: bytes) -> bytes:
    """Return a whole HTTP answer with a JSON ``body``."""
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


def failure(status: bytes, message: str) -> bytes:
    """Return a whole HTTP answer ``{"error": message}``."""
    return reply(status, dumps({"error": message}))


def malformed(error: Exception) -> bytes:
    """Return the answer to a body that is no request."""
    return failure(b"400 Bad Request", f"The request of the run is malformed: {error}")


class InitError(Exception):
    """The action cannot be initialised; the message is for its author and needs no stack."""


class Proxy:
    """One action: its function, the state of its life, and its two log streams."""

    def __init__(self, out: int, err: int) -> None:
        # The sentinels have descriptors of their own: a function that closes or redirects fd 1
        # and 2 loses its own output, not the end marks of its activations.
        self.out = out
        self.err = err
        self.init_asked = False
        self.running = False
        self.forked = False
        self.function: Callable[[Any], Any] | None = None
        self.told: dict[str, Any] = {}  # what the environment says of the last run
        self.overlaps = False  # the function is an ``async def``
        self.adopt: Callable[[int], None] | None = None  # takes later connections, if anything

    def init(self, body: bytes) -> bytes:
        """Perform POST /init and return the answer."""
        if self.init_asked:
            os.write(self.out, b"Cannot initialize the action more than once.\n")
            os.write(self.err, b"Cannot initialize the action more than once.\n")
            return failure(b"403 Forbidden", "Cannot initialize the action more than once.")
        self.init_asked = True
        self.running = True
        try:
            request = loads(body)
            value = request.get("value") if isinstance(request, dict) else None
            if not isinstance(value, dict) or not value.get("code"):
                message = "Missing main/no code to execute."
                sys.stderr.write(message + "\n")
                answer = failure(b"403 Forbidden", message)
            else:
                self.function = load(value)
                self.overlaps = is_async(self.function)
                body = b'{"ok":true,"concurrent":true}' if self.overlaps else b'{"ok":true}'
                answer = reply(b"200 OK", body)
        except BaseException as error:  # SystemExit of the module's own code included
            message = "Initialization has failed due to: " + stack_of(error)
            answer = failure(b"502 Bad Gateway", message)
            try:
                sys.stderr.write(message + "\n")
            except BaseException:
                pass  # the module closed or replaced stderr; the answer says it all
        self.end_if_forked()
        if self.function is None:
            self.end_logs()
        self.running = False
        return answer

    def run(self, body: bytes) -> bytes:
        """Perform POST /run and return the answer."""
        function = self.function
        if function is None:
            return failure(b"403 Forbidden", "System not initialized.")
        self.running = True
        try:
            value = self.begin(body)
        except (ValueError, TypeError, OSError) as error:
            answer = malformed(error)
        else:
            try:
                result = function(value)
                if type(result) is not dict and hasattr(result, "__await__"):
                    result = complete(result)
            except BaseException as error:  # sys.exit() and KeyboardInterrupt included
                report(error)
                result = {"error": message_of(error)}
            if self.forked:
                self.end_if_forked()
            answer = encode(result)
        self.end_logs()
        self.running = False
        return answer

    def begin(self, body: bytes) -> Any:
        """Set the environment of a run and return its arguments.

        Raises: ValueError, TypeError, OSError for a body that is no request.
        """
        request = loads(body)
        if type(request) is not dict:
            raise TypeError("it is not an object")
        value = request.pop("value", {})
        told = self.told
        for key, text in request.items():
            if told.get(key) != text:  # half of them are the same in every run
                tell(key, text if type(text) is str else as_text(text), key in told)
                told[key] = text
        return value

    async def overlapping_run(self, body: bytes) -> bytes:
        """Perform POST /run of an ``async def`` function; see ``run``.

        What runs at the same time shares the environment and the logs.
        """
        function: Any = self.function
        try:
            value = self.begin(body)
        except (ValueError, TypeError, OSError) as error:
            answer = malformed(error)
        else:
            try:
                result = await function(value)
            except BaseException as error:
                report(error)
                result = {"error": message_of(error)}
            self.end_if_forked()
            answer = encode(result)
        self.end_logs()
        return answer

    def end_logs(self) -> None:
        """Flush the function's output and mark its end on both streams."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:
            pass  # closed or replaced by the function: its own output is all that is lost
        os.write(self.out, SENTINEL_LINE)
        os.write(self.err, SENTINEL_LINE)

    def end_if_forked(self) -> None:
        """End a child that the function forked and that came back here as if it were the proxy."""
        if self.forked:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(0)


# The host's connection


def serve(connection: int, proxy: Proxy) -> None:
    """Answer the requests on ``connection`` until it closes or cannot be framed."""
    buffer = b""
    read = os.read
    while True:
        end = buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(buffer) > HEAD_BYTES_MAX:
                write_all(connection, failure(b"431 Too Large", "The head exceeds 16384 bytes."))
                return
            data = read(connection, READ_BYTES)
            if not data:
                return
            buffer = buffer + data if buffer else data
            end = buffer.find(b"\r\n\r\n")
        head = buffer[:end].lower()
        length = content_length(head)
        if not 0 <= length <= BODY_BYTES_MAX:
            write_all(connection, refusal(length))
            return
        start = end + 4
        end = start + length
        body = buffer[start:end]
        buffer = buffer[end:]
        if len(body) < length:
            body = read_rest(connection, body, length)
            if len(body) < length:
                return
        if head.startswith(b"post /run "):
            answer = proxy.run(body)
        elif head.startswith(b"post /init "):
            answer = proxy.init(body)
            if proxy.overlaps:
                overlap(connection, buffer, proxy, answer)
                return
        else:
            answer = not_found()
        write_all(connection, answer)


def not_found() -> bytes:
    """Return the answer to any other request."""
    return failure(b"404 Not Found", "There are only POST /init and POST /run.")


def refusal(length: int) -> bytes:
    """Return the answer to a request whose body has no length, or too much of it."""
    if length < 0:
        return failure(b"411 Length Required", "Requests need a Content-Length.")
    message = f"The body of {length} bytes exceeds the limit of {BODY_BYTES_MAX}."
    return failure(b"413 Content Too Large", message)


def content_length(head: bytes) -> int:
    """Return the length of the body that ``head`` (in lower case) announces; -1 if unusable."""
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return -1 if b"\r\ntransfer-encoding:" in head else 0
    end = head.find(b"\r\n", start + 2)
    digits = head[start + 17 : end if end >= 0 else len(head)].strip()
    return int(digits) if digits.isdigit() and len(digits) < 20 else -1


def read_rest(connection: int, body: bytes, length: int) -> bytes:
    """Return the body completed to ``length`` bytes; shorter only if the connection closed."""
    parts = [body]
    missing = length - len(body)
    while missing:
        data = os.read(connection, min(missing, 256 * 1024))
        if not data:
            break
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def write_all(connection: int, data: bytes) -> None:
    """Write all of ``data``.  Raises: OSError when the other side is gone."""
    written = os.write(connection, data)
    while written < len(data):
        data = data[written:]
        written = os.write(connection, data)


# Functions that wait: all connections in one event loop


def overlap(connection: int, buffer: bytes, proxy: Proxy, answer: bytes) -> None:
    """Answer /init, then serve the host and whoever comes later until its connection closes."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    talks: set[Any] = set()

    def start(fd: int) -> None:
        if len(talks) == OVERLAPPING_MAX:
            os.close(fd)
            return
        talk = loop.create_task(converse(loop, fd, b"", proxy))
        talks.add(talk)
        talk.add_done_callback(talks.discard)

    def adopt(fd: int) -> None:
        loop.call_soon_threadsafe(start, fd)

    proxy.adopt = adopt  # before the host hears that it may connect once more
    write_all(connection, answer)
    loop.run_until_complete(converse(loop, connection, buffer, proxy))


async def converse(loop: Any, fd: int, buffer: bytes, proxy: Proxy) -> None:
    """Answer the requests on a connection; see ``serve``."""
    os.set_blocking(fd, False)
    connection = _socket.socket(fileno=fd)
    try:
        while True:
            while (end := buffer.find(b"\r\n\r\n")) < 0 and len(buffer) <= HEAD_BYTES_MAX:
                data = await loop.sock_recv(connection, READ_BYTES)
                if not data:
                    return
                buffer += data
            head = buffer[:end].lower()
            length = content_length(head) if end >= 0 else -1
            if not 0 <= length <= BODY_BYTES_MAX:
                await loop.sock_sendall(connection, refusal(length))
                return
            parts = [buffer[end + 4 :]]
            missing = length - len(parts[0])
            while missing > 0:
                data = await loop.sock_recv(connection, min(missing, 256 * 1024))
                if not data:
                    return
                parts.append(data)
                missing -= len(data)
            body = b"".join(parts)
            body, buffer = body[:length], body[length:]
            if head.startswith(b"post /run "):
                answer = await proxy.overlapping_run(body)
            elif head.startswith(b"post /init "):
                answer = proxy.init(body)
            else:
                answer = not_found()
            await loop.sock_sendall(connection, answer)
    except OSError:
        pass  # the other side has gone
    finally:
        connection.close()


# Loading an action


def is_async(function: Any) -> bool:
    """Tell whether calling it only makes a coroutine: then the loop can run several at once."""
    code = getattr(function, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & 0x80)  # inspect.CO_COROUTINE


def load(value: dict[str, Any]) -> Callable[[Any], Any]:
    """Put the action's code into the working folder, import it and return its function."""
    for name, text in (value.get("env") or {}).items():
        os.environ[name] = text if type(text) is str else as_text(text)
    folder = os.getcwd()
    if value.get("binary"):
        unpack(value["code"], folder)
    else:
        # A real file, because tracebacks, inspect and pickled functions look for one.
        with open("main__.py", "wb") as file:
            file.write(value["code"].encode("utf-8"))
    sys.path.insert(0, folder)
    activate_virtualenv(folder)
    main = value.get("main") or "main"
    function = getattr(__import__("main__"), main, None)
    if not callable(function):
        raise InitError(f"Action entrypoint '{main}' is not a function.")
    return function  # type: ignore[no-any-return]


def unpack(code: str, folder: str) -> None:
    """Unpack a base64 zip archive with a ``__main__.py`` at its root, which becomes main__.py."""
    import binascii
    import io
    import zipfile

    try:
        archive = zipfile.ZipFile(io.BytesIO(binascii.a2b_base64(code)))
    except (ValueError, zipfile.BadZipFile) as error:
        raise InitError(f"The code is not a zip archive in base64: {error}.") from None
    with archive:
        members = archive.infolist()
        if "__main__.py" not in archive.namelist():
            raise InitError("Zip file does not include main__: it needs __main__.py at its root.")
        size = sum(member.file_size for member in members)
        if size > UNPACKED_BYTES_MAX:
            message = f"Zip file unpacks to {size} bytes, the limit is {UNPACKED_BYTES_MAX}."
            raise InitError(message)
        for member in members:
            path = archive.extract(member, folder)
            mode = member.external_attr >> 16 & 0o777
            if mode and not member.is_dir():  # zipfile drops modes; programs need theirs
                os.chmod(path, mode | 0o600)
    os.rename("__main__.py", "main__.py")


def activate_virtualenv(folder: str) -> None:
    """Activate ``virtualenv/`` if the action brought one."""
    if not os.path.isdir("virtualenv"):
        return
    for scripts in ("bin", "Scripts"):
        path = os.path.join(folder, "virtualenv", scripts, "activate_this.py")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec")
            exec(code, {"__file__": path, "__name__": "__main__"})
            return
    raise InitError("Invalid virtualenv. Zip file does not include 'activate_this.py'.")


# The environment of a run


def tell(key: str, text: str, again: bool) -> None:
    """Set the environment variable of ``key``; ``again``: it was set before, to something else."""
    variable = _variables.get(key)
    if variable is None or not variable.set(text.encode("utf-8", "surrogateescape")):
        name = "__OW_" + key.upper()
        os.environ[name] = text
        if variable is None and again and _putenv is not None:
            _variables[key] = Variable(name)


class Variable:
    """An environment variable that changes with every run: overwritten where it stands.

    ``os.environ[name] = value`` calls setenv(), and glibc never frees what a variable held
    before: 100 bytes for each of three variables and run fill a container of 256 MB within a
    million runs.  Here putenv() is given one piece of memory, once.
    """

    def __init__(self, name: str) -> None:
        self.key = os.fsencode(name)
        head = self.key + b"="
        # From malloc and never freed: the C library may read it until the very end.
        self.address = _malloc(VARIABLE_BYTES)
        self.memory = memoryview(_Memory.from_address(self.address)).cast("B")
        self.start = len(head)
        self.memory[: self.start] = head
        self.value = b""

    def set(self, value: bytes) -> bool:
        """Set it, for Python and for the C library; False if ``value`` is none that it takes."""
        end = self.start + len(value)
        if end >= VARIABLE_BYTES or b"\0" in value:
            return False
        self.memory[self.start : end] = value
        self.memory[end] = 0
        # Where the function has set it or taken it away, another memory is in force.
        if _environment.get(self.key) is not self.value:
            _putenv(self.address)
        _environment[self.key] = self.value = value
        return True


VARIABLE_BYTES = 256  # "__OW_TRANSACTION_ID=" and the 128 characters that clients may send, twice
_variables: dict[str, Variable] = {}
_putenv: Any = None
try:
    # The C module below ctypes, which alone would take 4 ms to import; this takes 0.5.
    _ctypes: Any = __import__("_ctypes")

    class _Byte(_ctypes._SimpleCData):  # type: ignore[misc]
        _type_ = "B"

    class _Pointer(_ctypes._SimpleCData):  # type: ignore[misc]
        _type_ = "P"

    class _Memory(_ctypes.Array):  # type: ignore[misc]
        _type_ = _Byte
        _length_ = VARIABLE_BYTES

    class _Function(_ctypes.CFuncPtr):  # type: ignore[misc]
        _flags_ = 1  # the calling convention of C
        _restype_ = _Pointer

    _library = _ctypes.dlopen(None, 0)
    _malloc: Any = _Function(_ctypes.dlsym(_library, "malloc"))
    _environment: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    _putenv = _Function(_ctypes.dlsym(_library, "putenv"))
    _putenv.argtypes = (_Pointer,)
except (ImportError, AttributeError, OSError, TypeError):
    pass  # an interpreter without them: then os.environ does, and glibc keeps the old values


# Results and errors


def encode(result: object) -> bytes:
    """Return the answer to a run whose function returned ``result``."""
    if not isinstance(result, (dict, list)):
        message = "The action did not return a dictionary or array."
        return failure(b"502 Bad Gateway", message)
    try:
        return reply(b"200 OK", dumps(result))
    except BaseException as error:
        message = f"The action returned what JSON cannot express: {message_of(error)}"
        return failure(b"502 Bad Gateway", message)


def complete(awaitable: Any) -> object:
    """Run what an ``async def`` function returned to its end, in an event loop of its own."""
    import asyncio

    async def waiting() -> object:
        return await awaitable

    return asyncio.run(waiting())


def message_of(error: BaseException) -> str:
    """Return ``str(error)``; the type's name where that says nothing."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    if isinstance(error, Exception):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}"


def report(error: BaseException) -> None:
    """Write the traceback to stderr, without the proxy's own frame."""
    try:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        # The interpreter's own hook; importing the traceback module would take 10 ms.
        sys.__excepthook__(type(error), error, error.__traceback__)
    except BaseException:
        pass  # stderr is closed or broken by the function


def stack_of(error: BaseException) -> str:
    """Return the traceback as text, without the proxy's own frames."""
    if isinstance(error, InitError):
        return str(error)
    try:
        import traceback

        stack = error.__traceback__
        while stack is not None and stack.tb_frame.f_globals is globals():
            stack = stack.tb_next
        return "".join(traceback.format_exception(type(error), error, stack)).rstrip("\n")
    except BaseException:  # the action's own modules may shadow what traceback imports
        return message_of(error)


def as_text(value: object) -> str:
    """Return what an environment variable holds for a JSON value that is not a string."""
    return "" if value is None else dumps(value).decode()


# JSON: what the json module does, from the same C code, without the 8 ms of importing re.


def loads(data: bytes) -> Any:
    """Return the value of a JSON text.  Raises: ValueError."""
    text = data.decode("utf-8").strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not a JSON text") from None
    except SystemError:
        # The C scanner takes its exception from json.decoder, if that was imported, and fails
        # without one if not.
        import json.decoder

        value, end = json.decoder.JSONDecoder().raw_decode(text)
    if end != len(text):
        raise ValueError(f"there is more after the JSON text, from character {end}")
    return value


def dumps(value: object) -> bytes:
    """Return ``value`` as compact JSON.  Raises: TypeError, ValueError (NaN, a circle)."""
    try:
        text = "".join(_encode(value, 0))
    except BaseException:
        _open_containers.clear()  # what the encoder was in when it failed
        raise
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair exists in JSON only as an escape
        return "".join(_encode_ascii(value, 0)).encode("ascii")


def _refuse(value: object) -> object:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_open_containers: dict[int, object] = {}
try:
    import _json

    class _Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float

    _scan: Any = _json.make_scanner(_Context)  # type: ignore[arg-type]

    def _encoder(string: Any) -> Any:
        return _json.make_encoder(
            _open_containers, _refuse, string, None, ":", ",", False, False, False
        )

    _encode = _encoder(_json.encode_basestring)
    _encode_ascii = _encoder(_json.encode_basestring_ascii)
except (ImportError, AttributeError, TypeError):  # an interpreter without, or with other, C code
    import json

    _scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

    def _pure(ascii_only: bool) -> Any:
        encoder = json.JSONEncoder(ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))
        return lambda value, level: encoder.encode(value)

    _encode = _pure(False)
    _encode_ascii = _pure(True)


# Connections beside the host's


class Visitor:
    """How far one of the other connections has got; bodies are counted, never kept."""

    def __init__(self) -> None:
        self.head = b""
        self.body_missing = 0

    def feed(self, data: bytes) -> int:
        """Take bytes and return how many requests they complete.  Raises: ValueError."""
        complete_count = 0
        while data:
            if self.body_missing:
                taken = min(len(data), self.body_missing)
                self.body_missing -= taken
                data = data[taken:]
                complete_count += not self.body_missing
                continue
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                if len(self.head) > HEAD_BYTES_MAX:
                    raise ValueError("the head is too long")
                break
            data = self.head[end + 4 :]
            self.body_missing = content_length(self.head[:end].lower())
            self.head = b""
            if self.body_missing < 0:
                raise ValueError("the request cannot be framed")
            complete_count += not self.body_missing
        return complete_count


class Leash:
    """How long the host may be silent; ``look`` ends the process when it was so for longer."""

    def __init__(self, folder: str) -> None:
        self.path = folder + "/leash"
        self.pause_ms: float | None = None  # between looks; None: it may be silent for ever
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return
        self.pause_ms = float(os.read(file, READ_BYTES)) * 1000 / LEASH_LOOKS
        os.close(file)
        self.next_s = time.monotonic() + self.pause_ms / 1000
        self.seen_ns = 0
        self.silent_looks = 0

    def look(self) -> None:
        """Look for a sign of life, unless it is too early for that."""
        now_s = time.monotonic()
        if self.pause_ms is None or now_s < self.next_s:
            return
        self.next_s = now_s + self.pause_ms / 1000
        try:
            found_ns = os.stat(self.path).st_mtime_ns
        except OSError:
            found_ns = self.seen_ns
        self.silent_looks = self.silent_looks + 1 if found_ns == self.seen_ns else 0
        self.seen_ns = found_ns
        if self.silent_looks >= LEASH_LOOKS:
            os._exit(0)


def attend(listener: _socket.socket, connection: int, proxy: Proxy, leash: Leash) -> None:
    """Refuse other connections, and end the process when the host's connection closes.

    Runs in a thread of its own, which sleeps in poll() unless somebody comes, or the host is to be
    looked after.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(connection, select.POLLRDHUP)
    visitors: dict[int, Visitor] = {}

    def leave(fd: int) -> None:
        poll.unregister(fd)
        del visitors[fd]
        os.close(fd)

    while True:
        found = poll.poll(leash.pause_ms)
        leash.look()
        for ready, _ in found:
            if ready == connection:
                os._exit(0)
            elif ready in visitors:
                if not receive(ready, visitors[ready], proxy):
                    leave(ready)
            elif (visitor := accept(listener)) < 0:
                pass
            elif proxy.adopt is not None:
                proxy.adopt(visitor)
            else:
                if len(visitors) == VISITORS_MAX:
                    leave(next(iter(visitors)))
                os.set_blocking(visitor, False)
                visitors[visitor] = Visitor()
                poll.register(visitor, select.POLLIN)


def receive(fd: int, visitor: Visitor, proxy: Proxy) -> bool:
    """Read from a visitor and answer; return whether its connection is to be kept."""
    try:
        data = os.read(fd, READ_BYTES)
        try:
            complete_count = visitor.feed(data)
            answer = failure(
                b"403 Forbidden",
                "System not ready, status is running."
                if proxy.running
                else "Only the first connection may use the action.",
            )
        except ValueError as error:
            data = b""
            complete_count = 1
            answer = failure(b"400 Bad Request", f"The request is malformed: {error}.")
        for _ in range(complete_count):
            # A visitor that does not read its answers loses its connection; nothing waits for it.
            if os.write(fd, answer) != len(answer):
                return False
    except OSError:
        return False
    return bool(data)


def accept(listener: _socket.socket) -> int:
    """Return the descriptor of a new connection; -1 if it is gone already."""
    try:
        return listener._accept()[0]  # type: ignore[attr-defined,no-any-return]
    except OSError:
        return -1


# Start


def main(folder: str) -> None:
    """Keep the start-up contract, then serve until the host is gone."""
    out = os.open(folder + "/stdout", os.O_WRONLY)
    err = os.open(folder + "/stderr", os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(err, 2)
    # By lines, so that a function that is killed has shown what it printed until then.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    work = os.getcwd()
    os.chdir(folder)  # the path of a socket holds 107 bytes; a relative one always fits
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind("run.sock")
    os.chmod("run.sock", 0o666)
    listener.listen(VISITORS_MAX)
    listener.setblocking(False)
    os.chdir(work)
    os.write(out, READY_LINE)

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(out, 0)  # reports only POLLERR: the last reader is gone
    leash = Leash(folder)
    connection = -1
    while connection < 0:
        found = poll.poll(leash.pause_ms)
        leash.look()
        if any(ready == out for ready, _ in found):
            os._exit(0)
        if found:
            connection = accept(listener)
    os.set_blocking(connection, True)

    proxy = Proxy(out, err)

    def forget() -> None:
        # In a child that the function forks: it must not hold the connection open after us.
        proxy.forked = True
        for fd in (connection, listener.fileno(), out, err):
            try:
                os.close(fd)
            except OSError:
                pass

    os.register_at_fork(after_in_child=forget)
    _thread.start_new_thread(attend, (listener, connection, proxy, leash))
    try:
        serve(connection, proxy)
    except OSError:
        pass  # the host went away while it was being answered
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
