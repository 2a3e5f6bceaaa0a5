"""The stdout and stderr of one container: two FIFOs, cut into the logs of its activations.

The host makes and opens the FIFOs before the container starts; what runs inside opens them as
its fd 1 and 2 and ends each activation with a sentinel line on both.  Which activation a log
belongs to is the caller's knowledge: logs come out in the order of the runs.

Left out: deciding when a missing sentinel is given up on, and the lines that say so.

Use: ``drain`` on a tick while the container is busy and when a run ends (a function whose pipe
is full waits for it), then ``next_log`` once for each run that ended, until it returns None.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime

SENTINEL = b"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
READY = b"XXX_THE_ACTION_PROXY_LISTENS_XXX"

LIMIT_BYTES_DEFAULT = 10 * 1024 * 1024  # of one activation's log; OpenWhisk's default and maximum
LINE_BYTES_MAX = 64 * 1024  # longer lines come out as several, each of at most this size
# A pipe of 256 KiB takes 12 MB/s between ticks of 20 ms.  1 MiB was dropped: an unprivileged user
# has 64 MiB for all pipes, and beyond that the kernel gives every further pipe 8 KiB.
PIPE_BYTES = 256 * 1024
READ_BYTES = 8 * 1024  # of empty lines, the worst text, take 5 ms to take apart
DRAIN_LINES = 2_000  # lines after which a drain returns: 1-2 ms of the event loop
DRAIN_BYTES = 1024 * 1024  # likewise, when the lines are thrown away
AHEAD_MAX = 10_000  # sentinels of runs not asked for; a function can print the sentinel itself
REST_BYTES_MAX = 4 * 1024 * 1024  # a process that outlived its container may write for ever

_SENTINEL_LINE = SENTINEL + b"\n"
_READY_LINE = READY + b"\n"
_PREFIX_BYTES = len("2024-01-01T00:00:00.000000000Z stdout: ") + 1  # what a record adds to a line


class LogPipes:
    """The log FIFOs of one container.

    ``limit_bytes`` bounds the log of one activation, as it stands in the record (time and stream
    included); lines beyond it are dropped and a last line says so.  0: no logs are kept.  It may
    be changed at any time.  All held logs together are bounded by twice that.
    """

    def __init__(self, directory: str, stdout: int, stderr: int) -> None:
        """Take two open descriptors; ``create`` makes them."""
        self.directory = directory
        self.limit_bytes = LIMIT_BYTES_DEFAULT
        self._streams = (_Stream("stdout", stdout), _Stream("stderr", stderr))
        self._handed_count = 0
        self._held_bytes = 0
        self._logs: dict[int, _Log] = {}  # by the run's number; only runs that printed something
        self._now_ns = 0
        self._stamp = ""
        self._said: asyncio.Future[None] | None = None

    @classmethod
    def create(cls, directory: str) -> LogPipes:
        """Make the FIFOs ``stdout`` and ``stderr`` in ``directory`` and open them.

        Their mode is 0666, so that another user inside a container can open them: the folder
        above must be closed to others.  Raises: OSError, and then nothing is left open.
        """
        opened: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                path = os.path.join(directory, name)
                os.mkfifo(path)
                os.chmod(path, 0o666)
                # Open for writing too: then reading never meets an end of file.
                flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                opened.append(os.open(path, flags))
                if not stat.S_ISFIFO(os.fstat(opened[-1]).st_mode):
                    raise OSError(f"{path} is not a FIFO: something replaced it")
                with suppress(OSError):  # the user's share of pipes is used up: it only waits more
                    fcntl.fcntl(opened[-1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return cls(directory, *opened)

    async def ready(self) -> None:
        """Wait until the proxy says that it listens.  The caller bounds the wait.

        What came before that line is kept, as lines of the first run.  Raises: OSError if the
        pipes are, or become, closed.
        """
        stream = self._streams[0]
        if stream.fd < 0:
            raise OSError("the log pipes are closed")
        loop = asyncio.get_running_loop()
        said = self._said = loop.create_future()

        def look() -> None:
            try:
                stream.tail = (stream.tail + os.read(stream.fd, READ_BYTES))[-LINE_BYTES_MAX:]
            except BlockingIOError:
                return
            before, found, after = stream.tail.partition(_READY_LINE)
            if found and not said.done():
                stream.tail = before + after
                said.set_result(None)

        loop.add_reader(stream.fd, look)
        try:
            await said
        finally:
            self._unwatch()

    def drain(self, now_ns: int) -> int:
        """Read what is there; its lines get the time ``now_ns`` (wall clock, since 1970).

        Returns how many runs have a complete log that was not handed out.  Never waits; one call
        takes 1-2 ms (5 at worst), so a full pipe needs several.  Cost for a run without output:
        two reads and 1-2 us.  After ``close`` nothing is read.
        """
        self._now_ns = now_ns
        self._stamp = ""
        stdout, stderr = self._streams
        for stream in (stdout, stderr):
            try:
                data = os.read(stream.fd, READ_BYTES)
            except OSError:
                continue  # nothing there, or closed
            # Of runs that printed nothing there are only sentinels, one for each.
            runs, more = divmod(len(data), len(_SENTINEL_LINE))
            if not more and not stream.tail and data == _SENTINEL_LINE * runs:
                self._end(stream, runs)
            else:
                self._drain_more(stream, data)
        return min(stdout.ended_count, stderr.ended_count) - self._handed_count

    def next_log(self) -> list[str] | None:
        """Return the log of the oldest run not handed out; None while it is not complete."""
        number = self._handed_count
        stdout, stderr = self._streams
        if stdout.ended_count <= number or stderr.ended_count <= number:
            return None
        self._handed_count = number + 1
        if number not in self._logs:
            return []
        log = self._logs.pop(number)
        self._held_bytes -= log.size
        return log.lines

    def take_rest(self, now_ns: int) -> list[str]:
        """Drain a container that ended and return everything not handed out, without sentinels."""
        self._now_ns = now_ns
        self._stamp = ""
        for stream in self._streams:
            with suppress(OSError):
                for _ in range(REST_BYTES_MAX // READ_BYTES):
                    self._take(stream, os.read(stream.fd, READ_BYTES))
            if stream.tail:
                self._keep(stream, stream.tail)
                stream.tail = b""
        rest = [line for _, log in sorted(self._logs.items()) for line in log.lines]
        self._logs.clear()
        self._held_bytes = 0
        self._handed_count = max(stream.ended_count for stream in self._streams)
        for stream in self._streams:
            stream.ended_count = self._handed_count
        return rest

    def stderr_line(self, text: str, now_ns: int) -> str:
        """Return ``text`` in the form of a line of the record; it is not kept."""
        self._now_ns = now_ns
        self._stamp = ""
        return f"{self._time()} stderr: {text}"

    def close(self) -> None:
        """Close both FIFOs; idempotent.  Their files belong to the folder's owner."""
        said = self._said
        self._unwatch()
        if said is not None and not said.done():
            said.set_exception(OSError("the log pipes were closed"))
        for stream in self._streams:
            if stream.fd >= 0:
                os.close(stream.fd)
                stream.fd = -1

    def _unwatch(self) -> None:
        # Always before the descriptor goes: the loop must not watch a number that others get next.
        if self._said is not None:
            self._said.get_loop().remove_reader(self._streams[0].fd)
            self._said = None

    def _drain_more(self, stream: _Stream, data: bytes) -> None:
        """Take ``data``, which is not just one sentinel, and read on within the bounds."""
        lines = self._take(stream, data)
        taken = len(data)
        while len(data) == READ_BYTES and lines < DRAIN_LINES and taken < DRAIN_BYTES:
            try:
                data = os.read(stream.fd, READ_BYTES)
            except OSError:
                return
            lines += self._take(stream, data)
            taken += len(data)

    def _take(self, stream: _Stream, data: bytes) -> int:
        """Cut ``data`` at the sentinels; return how many lines were kept."""
        data = stream.tail + data
        end = data.rfind(b"\n") + 1
        kept = position = 0
        while True:
            # A sentinel may follow text that had no newline, so it ends a line, not is one.
            sentinel = data.find(_SENTINEL_LINE, position, end)
            until = end if sentinel < 0 else sentinel
            if until > position:
                kept += self._keep(stream, data[position:until])
            if sentinel < 0:
                break
            self._end(stream)
            position = sentinel + len(_SENTINEL_LINE)
        tail = data[end:]
        # The beginning of a sentinel may be the end of the tail, so that much always stays.
        while len(tail) >= LINE_BYTES_MAX + len(_SENTINEL_LINE):
            cut = _character_start(tail, LINE_BYTES_MAX)
            kept += self._keep(stream, tail[:cut])
            tail = tail[cut:]
        stream.tail = tail
        return kept

    def _end(self, stream: _Stream, runs: int = 1) -> None:
        stream.ended_count = min(stream.ended_count + runs, self._handed_count + AHEAD_MAX)

    def _keep(self, stream: _Stream, text: bytes) -> int:
        """Add the lines of ``text`` to the log of the stream's run; return how many fitted."""
        limit = self.limit_bytes
        log = self._logs.get(stream.ended_count)
        if not limit or (log and log.full):
            return 0
        if log is None:
            log = self._logs[stream.ended_count] = _Log()
        prefix = f"{self._time()} {stream.name}: "
        kept = 0
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            # Cut before the limit is looked at, so that what fits of a huge line is kept.
            for piece in _pieces(line) if len(line) > LINE_BYTES_MAX else (line,):
                size = len(piece) + _PREFIX_BYTES
                if log.size + size > limit or self._held_bytes + size > 2 * limit:
                    log.full = True
                    log.lines.append(
                        f"{self._time()} stderr: Logs were truncated because the total bytes size"
                        f" exceeds the limit of {limit} bytes."
                    )
                    return kept
                log.lines.append(prefix + piece.decode("utf-8", "replace"))
                log.size += size
                self._held_bytes += size
                kept += 1
        return kept

    def _time(self) -> str:
        if not self._stamp:
            seconds, fraction = divmod(self._now_ns, 1_000_000_000)
            second = datetime.fromtimestamp(seconds, UTC)
            self._stamp = f"{second:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
        return self._stamp


class _Stream:
    """One FIFO: how many sentinels were read, and the line that is not ended yet."""

    __slots__ = ("ended_count", "fd", "name", "tail")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.ended_count = 0
        self.tail = b""


class _Log:
    """The lines of one activation, formatted."""

    __slots__ = ("full", "lines", "size")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.size = 0
        self.full = False


def _pieces(line: bytes) -> list[bytes]:
    pieces = []
    while len(line) > LINE_BYTES_MAX:
        cut = _character_start(line, LINE_BYTES_MAX)
        pieces.append(line[:cut])
        line = line[cut:]
    pieces.append(line)
    return pieces


def _character_start(data: bytes, position: int) -> int:
    """Return ``position``, or up to 3 less where it would cut a UTF-8 character in two."""
    start = position
    while position - start < 3 and data[start] & 0xC0 == 0x80:
        start -= 1
    return start
