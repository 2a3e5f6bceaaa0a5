"""What every runtime must do, whatever engine its sandbox comes from, and what python's must.

``RuntimeCases`` is the conformance suite of OpenWhisk's action runtimes, told anew; a language
gives it its functions.  Subclass ``PythonRuntimeCases`` (or that of another language) and give it
an ``engine`` fixture that yields a ``SandboxEngine``.
"""

import asyncio
import base64
import http.client
import io
import json
import os
import socket
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from waiting import eventually, until, wait_until

from acs_node.sandboxes import Sandbox, SandboxEngine, SandboxSpec

DEADLINE_S = 15.0
TICK_S = 0.005
API_HOST = "http://127.0.0.1:3233"
RUN_KEYS = {
    "namespace": "guest",
    "action_name": "/guest/hello",
    "action_version": "0.0.1",
    "activation_id": "0123456789abcdef0123456789abcdef",
    "transaction_id": "tid_1",
    "deadline": "1700000000000",
    "api_key": "user:key",
}
ECHO = "def main(args):\n    return args\n"


class UnixHttp(http.client.HTTPConnection):
    """``http.client`` over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("action", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Container:
    """A sandbox with the host's connection and its log collector."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.http: http.client.HTTPConnection = UnixHttp(sandbox.socket_path)
        if sandbox.port:
            self.http = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=DEADLINE_S)
        self.http.connect()

    async def call(self, work: Callable[[], Any]) -> Any:
        """Do blocking ``work`` in a thread, collecting logs meanwhile, as a host must."""
        doing = asyncio.get_running_loop().run_in_executor(None, work)
        while not doing.done():
            self.sandbox.logs.drain(time.time_ns())
            await asyncio.wait([doing], timeout=TICK_S)
        self.sandbox.logs.drain(time.time_ns())
        return doing.result()

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        """Return status and parsed body; an OSError or HTTPException if the proxy dies."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        def exchange() -> tuple[int, Any]:
            self.http.request("POST", path, data, {"Content-Type": "application/json"})
            response = self.http.getresponse()
            assert response.getheader("Content-Length") is not None
            return response.status, json.loads(response.read())

        return await self.call(exchange)

    async def init(self, code: str, **more: object) -> tuple[int, Any]:
        value = {"name": "hello", "main": "main", "code": code, "binary": False, "env": {}, **more}
        return await self.post("/init", {"value": value})

    async def run(self, value: object = None) -> tuple[int, Any]:
        return await self.post("/run", {"value": {} if value is None else value, **RUN_KEYS})

    def log(self) -> list[str]:
        """Return the next complete log as ``stdout: text`` lines."""

        def found() -> tuple[list[str]] | None:
            self.sandbox.logs.drain(time.time_ns())
            lines = self.sandbox.logs.next_log()
            return None if lines is None else (lines,)

        (lines,) = wait_until(found, "sentinels on both streams", DEADLINE_S)
        return [without_time(line) for line in lines]

    async def last_words(self) -> list[str]:
        """Return what a container that ended had said; it must have said something."""
        return await until(self.rest, "its last words", DEADLINE_S)

    def rest(self) -> list[str]:
        return [without_time(line) for line in self.sandbox.logs.take_rest(time.time_ns())]


def without_time(line: str) -> str:
    """Return a record's log line without its time, which must have the record's form."""
    assert line[30] == " ", line
    assert line[29] == "Z", line
    return line[31:]


def zipped(files: Iterable[tuple[str, str]]) -> str:
    """Return a base64 zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in files:
            archive.writestr(name, text)
    return base64.b64encode(target.getvalue()).decode()


Started = Callable[[], Awaitable[Container]]


class RuntimeFixtures:
    """Containers of the ``engine`` fixture, which a subclass or its module gives."""

    kind = "python:3"

    @pytest.fixture
    async def started(self, engine: SandboxEngine) -> AsyncIterator[Started]:
        containers: list[Container] = []

        async def start(memory_mb: int = 256) -> Container:
            name = f"case-{time.time_ns():x}"
            environment = {"__OW_API_HOST": API_HOST}
            spec = SandboxSpec(name, self.kind, memory_mb, environment)
            containers.append(Container(await engine.start(spec)))
            return containers[-1]

        yield start
        for container in containers:
            container.http.close()
            await engine.remove(container.sandbox)

    @pytest.fixture
    async def container(self, started: Started) -> Container:
        return await started()


class RuntimeCases(RuntimeFixtures):
    """The functions are those of a language; what they must do is the same in each."""

    echo = ""
    """Returns its arguments, prints nothing."""
    echo_and_speak = ""
    """Prints "hello stdout" and "hello stderr", each to its stream, and returns its arguments."""
    return_other_types = ""
    """Returns what no runtime takes, one kind for each ``args.number`` from 0 to 3."""
    wrong_type = "The action did not return a dictionary or array."
    niam = ""
    """Its function is called niam and returns ``{"ok": 1}``."""
    snow = ""
    """Prints "❄ ☃ ❄", with its own snowman, and returns it as ``winter``."""
    environment_at_init = ""
    """Returns SOME_VAR as it was when the code was loaded, as it is, and ANOTHER_VAR, by name."""
    environment = ""
    """Returns the environment variables that begin with __OW_."""
    dies_at_init = ""
    dies_in_run = ""
    """Prints "last words" and ends the process with status 7."""
    no_newline = ""
    """Prints "no newline" without one."""
    floods = ""
    """Prints ``args.chunks`` times 65536 x without a newline, returns ``{"done": true}``."""
    broken: tuple[tuple[str, str], ...] = ()
    """Code that cannot be loaded, and what must be said of it."""

    async def test_init_without_code_fails(self, container: Container) -> None:
        status, body = await container.post("/init", {"value": {"name": "hello", "main": "main"}})
        assert (status, body) == (403, {"error": "Missing main/no code to execute."})
        assert container.log() == ["stderr: Missing main/no code to execute."]

    async def test_init_with_an_empty_object_fails(self, container: Container) -> None:
        status, body = await container.post("/init", {})
        assert (status, body) == (403, {"error": "Missing main/no code to execute."})

    async def test_a_result_of_another_type_is_refused(self, container: Container) -> None:
        await container.init(self.return_other_types)
        for number in range(4):
            assert await container.run({"number": number}) == (502, {"error": self.wrong_type})
            assert container.log() == []

    async def test_a_second_init_is_refused(self, container: Container) -> None:
        message = "Cannot initialize the action more than once."
        assert (await container.init(self.echo))[0] == 200
        assert await container.init(self.echo) == (403, {"error": message})
        # In the logs, but without sentinels: it is no activation.
        assert container.sandbox.logs.next_log() is None
        assert (await container.run({"a": 1})) == (200, {"a": 1})
        # A drain may come between the writes to the two streams.
        assert sorted(container.log()) == [f"stderr: {message}", f"stdout: {message}"]

    async def test_main_may_have_another_name(self, container: Container) -> None:
        await container.init(self.niam, main="niam")
        assert await container.run() == (200, {"ok": 1})

    async def test_echo_with_output(self, container: Container) -> None:
        status, body = await container.init(self.echo_and_speak)
        assert (status, body["ok"]) == (200, True)
        for value in (
            {"string": "hello"},
            {"unicode": "❄ ☃ ❄", "other": '𝄞 \x00 \\ " \n'},
            {"numbers": [0, -1, 1.5, 1e300, 9007199254740991]},
            {"array": ["a", None, True, False, {}], "nested": {"a": {"b": {"c": []}}}},
            {"half of a pair": "\ud834"},
            [{"a": 1}, "b", 3],
            {},
        ):
            assert await container.run(value) == (200, value)
            # In which order two streams are read is chance.
            assert sorted(container.log()) == ["stderr: hello stderr", "stdout: hello stdout"]
        assert container.sandbox.logs.next_log() is None
        assert container.rest() == []

    async def test_unicode_in_source_and_output(self, container: Container) -> None:
        await container.init(self.snow)
        assert await container.run({"delimiter": "❄"}) == (200, {"winter": "❄ ☃ ❄"})
        assert container.log() == ["stdout: ❄ ☃ ❄"]

    async def test_environment_at_init(self, container: Container) -> None:
        variables = {"SOME_VAR": "xyz", "ANOTHER_VAR": ""}
        await container.init(self.environment_at_init, env=variables)
        assert await container.run() == (200, {"import": "xyz", "some": "xyz", "another": ""})

    async def test_environment_of_a_run(self, container: Container) -> None:
        await container.init(self.environment)
        expected = {"__OW_" + key.upper(): value for key, value in RUN_KEYS.items()}
        assert await container.run() == (200, {**expected, "__OW_API_HOST": API_HOST})
        body = {"value": {}, **RUN_KEYS, "activation_id": "f" * 32, "deadline": 5}
        _, seen = await container.post("/run", body)
        assert (seen["__OW_ACTIVATION_ID"], seen["__OW_DEADLINE"]) == ("f" * 32, "5")

    async def test_large_argument(self, container: Container) -> None:
        await container.init(self.echo)
        for size in (131_072, 1_000_000, 2 * 1024 * 1024):
            value = {"large": "❄" + "x" * size}
            assert await container.run(value) == (200, value)

    async def test_code_that_cannot_be_loaded(self, started: Started) -> None:
        for code, text in self.broken:
            container = await started()
            status, body = await container.init(code)
            assert status == 502, code
            assert body["error"].startswith("Initialization has failed due to: ")
            assert text in body["error"]
            assert any(text in line for line in container.log()), "and in the log, with sentinels"
            assert await container.run() == (403, {"error": "System not initialized."})
            assert (await container.init(self.echo))[0] == 403, "a failed init cannot be repeated"

    async def test_run_before_init(self, container: Container) -> None:
        assert await container.run() == (403, {"error": "System not initialized."})

    async def test_bodies_that_are_no_requests(self, container: Container) -> None:
        await container.init(self.echo)
        for body in (b"", b"{", b"[1]", b"{} {}", b'{"value": {}, "a=b": "c"}'):
            status, answer = await container.post("/run", body)
            assert status == 400, body
            assert answer["error"].startswith("The request of the run is malformed: ")
            assert container.log() == []
        assert (await container.post("/other", {}))[0] == 404
        assert await container.run({"a": 1}) == (200, {"a": 1})

    @pytest.mark.parametrize("where", ["init", "run"])
    async def test_a_process_that_dies(
        self, engine: SandboxEngine, container: Container, where: str
    ) -> None:
        code = self.dies_at_init
        if where == "run":
            code = self.dies_in_run
            assert (await container.init(code))[0] == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            await (container.init(code) if where == "init" else container.run())
        assert "status 7" in (await engine.ending(container.sandbox)).cause
        assert await container.last_words() == ["stdout: last words"]

    async def test_an_endless_line_is_cut_and_ends_with_its_run(self, container: Container) -> None:
        container.sandbox.logs.limit_bytes = 200_000
        await container.init(self.floods)
        assert await container.run({"chunks": 100}) == (200, {"done": True})
        lines = container.log()
        assert [len(line) for line in lines[:-1]] == [len("stdout: ") + 65536] * 3
        assert lines[-1] == (
            "stderr: Logs were truncated because the total bytes size exceeds the limit of"
            " 200000 bytes."
        )
        assert await container.run({"chunks": 0}) == (200, {"done": True})
        assert container.log() == []

    async def test_output_without_newline_is_kept(self, container: Container) -> None:
        await container.init(self.no_newline)
        for _ in range(2):
            await container.run()
            assert container.log() == ["stdout: no newline"]


class PythonCases(RuntimeCases):
    """Those of every runtime, with functions in python."""

    echo = ECHO
    echo_and_speak = """
import sys
def main(args):
    print("hello stdout")
    print("hello stderr", file=sys.stderr)
    return args
"""
    return_other_types = """
def main(args):
    return ["a string", 3, None, object()][args["number"]]
"""
    niam = "def niam(args):\n    return {'ok': 1}\n"
    snow = """
def main(args):
    sep = args["delimiter"]
    str = sep + " ☃ " + sep
    print(str)
    return {"winter": str}
"""
    environment_at_init = """
import os
AT_IMPORT = os.environ["SOME_VAR"]
def main(args):
    env = os.environ
    return {"import": AT_IMPORT, "some": env["SOME_VAR"], "another": env["ANOTHER_VAR"]}
"""
    environment = """
import os
def main(args):
    return {k: v for k, v in os.environ.items() if k.startswith("__OW_")}
"""
    dies_at_init = "print('last words'); __import__('os')._exit(7)\n"
    dies_in_run = "def main(args):\n    print('last words'); __import__('os')._exit(7)\n"
    no_newline = "def main(args):\n    print('no newline', end='')\n    return {}\n"
    floods = """
import os
def main(args):
    for _ in range(args["chunks"]):
        os.write(1, b"x" * 65536)
    return {"done": True}
"""
    broken = (
        ("def main(args)\n    return {}\n", "SyntaxError"),
        ("def other(args):\n    return {}\n", "Action entrypoint 'main' is not a function."),
        ("main = 3\n", "Action entrypoint 'main' is not a function."),
        ("raise OSError('at import')\n", "OSError: at import"),
        ("import sys\nsys.exit(4)\n", "SystemExit: 4"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
    )


class PythonRuntimeCases(PythonCases):
    """Those, and what our runtime does beside."""

    async def test_integers_have_no_bound(self, container: Container) -> None:
        await container.init(ECHO)
        assert await container.run({"n": 12345678901234567890}) == (
            200,
            {"n": 12345678901234567890},
        )
        status, answer = await container.post("/run", b"\xff")
        assert (status, "malformed" in answer["error"]) == (400, True)

    # Errors of the function

    async def test_an_exception_is_an_application_error(self, container: Container) -> None:
        await container.init("def main(args):\n    raise ValueError('no ' + args['x'])\n")
        assert await container.run({"x": "luck"}) == (200, {"error": "no luck"})
        lines = container.log()
        assert lines[0] == "stderr: Traceback (most recent call last):"
        assert "main__.py" in lines[1], "the first frame is the function's"
        assert lines[-1] == "stderr: ValueError: no luck"
        assert (await container.run({}))[1] == {"error": "'x'"}, "it serves the next run"

    @pytest.mark.parametrize(
        ("statement", "error"),
        [
            ("import sys; sys.exit(3)", "SystemExit: 3"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
            ("raise RuntimeError", "RuntimeError"),
            ("main(args)", "maximum recursion depth exceeded"),
        ],
    )
    async def test_what_would_end_a_program(
        self, container: Container, statement: str, error: str
    ) -> None:
        await container.init(f"def main(args):\n    {statement}\n")
        for _ in range(2):
            status, body = await container.run()
            assert status == 200
            assert body["error"].startswith(error)

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ("{'a': {1, 2}}", "Object of type set is not JSON serializable"),
            ("{'a': float('nan')}", "Out of range float values are not JSON compliant"),
            ("circle", "Circular reference detected"),
            ("{(1, 2): 3}", "keys must be str"),
        ],
    )
    async def test_a_result_that_json_cannot_express(
        self, container: Container, result: str, message: str
    ) -> None:
        code = f"circle = {{}}\ncircle['a'] = circle\ndef main(args):\n    return {result}\n"
        await container.init(code)
        for _ in range(2):
            status, body = await container.run()
            assert status == 502
            assert "JSON cannot express" in body["error"]
            assert message in body["error"]

    async def test_a_function_may_lose_its_own_output(self, container: Container) -> None:
        code = """
import os, sys
def main(args):
    if args["first"]:
        os.close(1); os.close(2)
        sys.stdout = None
    return {"alive": True}
"""
        await container.init(code)
        for first in (True, False):
            assert await container.run({"first": first}) == (200, {"alive": True})
            assert container.log() == []

    async def test_a_forked_child_neither_answers_nor_holds_the_connection(
        self, engine: SandboxEngine, container: Container
    ) -> None:
        code = """
import os, signal
def main(args):
    if args["how"] == "return":
        os.fork()
        return {"pid": os.getpid()}
    if os.fork() == 0:
        signal.pause()
    if args["how"] == "die":
        os._exit(9)
    return {"pid": os.getpid()}
"""
        await container.init(code)
        _, first = await container.run({"how": "return"})
        _, second = await container.run({"how": "stay"})
        assert first == second, "only the proxy answers"
        assert [container.log(), container.log()] == [[], []]
        assert container.rest() == []
        assert container.sandbox.logs.next_log() is None, "only the proxy writes sentinels"
        # The child that stays holds the pipes; the host must still see the end.
        with pytest.raises((http.client.HTTPException, OSError)):
            await container.run({"how": "die"})
        assert "status 9" in (await engine.ending(container.sandbox)).cause

    async def test_an_async_function(self, container: Container) -> None:
        code = """
import asyncio
async def main(args):
    await asyncio.sleep(0)
    return args
"""
        await container.init(code)
        assert await container.run({"a": 1}) == (200, {"a": 1})

    async def test_runs_of_an_async_function_overlap(self, container: Container) -> None:
        code = """
import asyncio, os
met = []
came = asyncio.Condition()
async def main(args):
    async with came:
        met.append(1)
        came.notify_all()
        await came.wait_for(lambda: len(met) >= args["meet"])
    print("met")
    return {"n": args["n"], "where": os.getpid()}
"""
        assert await container.init(code) == (200, {"ok": True, "concurrent": True})
        others = [UnixHttp(container.sandbox.socket_path) for _ in range(2)]

        def run(other: UnixHttp, n: int) -> Any:
            other.request("POST", "/run", b'{"value": {"meet": 3, "n": %d}}' % n)
            return json.loads(other.getresponse().read())

        *answers, (_, last) = await asyncio.gather(
            *(asyncio.to_thread(run, other, n) for n, other in enumerate(others)),
            container.run({"meet": 3, "n": 2}),
        )
        assert [answer["n"] for answer in (*answers, last)] == [0, 1, 2]
        assert len({answer["where"] for answer in (*answers, last)}) == 1
        lines = [line for _ in range(3) for line in container.log()]
        assert lines == ["stdout: met"] * 3
        for other in others:
            other.close()
        assert (await container.run({"meet": 0, "n": 3}))[0] == 200, "it goes on without them"

    async def test_an_async_function_is_served_as_any_other(self, container: Container) -> None:
        code = """
import sys
async def main(args):
    if "fail" in args:
        raise {"error": ValueError, "exit": SystemExit}[args["fail"]]("so")
    return args.get("result", args)
"""
        await container.init(code)
        assert (await container.init(code))[0] == 403
        assert await container.run({"fail": "error"}) == (200, {"error": "so"})
        assert "stderr: ValueError: so" in container.log()
        assert await container.run({"fail": "exit"}) == (200, {"error": "SystemExit: so"})
        assert await container.run({"result": 3}) == (502, {"error": self.wrong_type})
        assert (await container.post("/run", b"{"))[0] == 400
        assert (await container.post("/other", {}))[0] == 404
        value = {"large": "x" * 1_000_000}
        assert await container.run(value) == (200, value)
        connection = container.http.sock
        assert connection is not None
        body = b'{"value":{"n":1}}'
        request = b"POST /run HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for position in range(len(request)):
            connection.sendall(request[position : position + 1])
        connection.sendall(request * 2)
        received = b""
        while received.count(b'{"n":1}') < 3:
            received += connection.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 3

    async def test_a_function_has_the_main_thread(self, container: Container) -> None:
        code = """
import signal, threading
def main(args):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return {"main": threading.current_thread() is threading.main_thread()}
"""
        await container.init(code)
        assert await container.run() == (200, {"main": True})

    # Zip archives

    async def test_a_zip_with_modules(self, container: Container) -> None:
        files = [
            ("__main__.py", "from help.me import text\nimport os\nNAME = __name__\n"
             "def main(args):\n    return {'text': text(), 'data': open('data.txt').read(),"
             " 'name': NAME}\n"),
            ("help/__init__.py", ""),
            ("help/me.py", "def text():\n    return 'from a module'\n"),
            ("data.txt", "from a file"),
        ]  # fmt: skip
        assert await container.init(zipped(files), binary=True) == (200, {"ok": True})
        expected = {"text": "from a module", "data": "from a file", "name": "main__"}
        assert await container.run() == (200, expected)

    async def test_a_zip_with_a_virtualenv(self, container: Container) -> None:
        files = [
            ("__main__.py", "import extra\ndef main(args):\n    return {'extra': extra.VALUE}\n"),
            ("virtualenv/bin/activate_this.py", "import os, sys\nsys.path.insert(0, os.path.join("
             "os.path.dirname(os.path.dirname(__file__)), 'lib'))\n"),
            ("virtualenv/lib/extra.py", "VALUE = 42\n"),
        ]  # fmt: skip
        assert await container.init(zipped(files), binary=True) == (200, {"ok": True})
        assert await container.run() == (200, {"extra": 42})

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (zipped([("other.py", "")]), "Zip file does not include main__"),
            (
                zipped([("__main__.py", ECHO), ("virtualenv/bin/python", "")]),
                "Invalid virtualenv. Zip file does not include 'activate_this.py'.",
            ),
            ("code", "not a zip archive in base64"),
            ("a", "not a zip archive in base64"),
        ],
        ids=["no-main", "virtualenv", "no-zip", "no-base64"],
    )
    async def test_archives_that_are_refused(
        self, container: Container, code: str, message: str
    ) -> None:
        status, body = await container.init(code, binary=True)
        assert status == 502
        assert message in body["error"]
        assert "Traceback" not in body["error"]

    # A slow function

    async def test_others_get_an_answer_while_a_function_runs(self, container: Container) -> None:
        code = "def main(args):\n    print('begun')\n    while True:\n        pass\n"
        await container.init(code)
        running = asyncio.create_task(container.run())
        other = UnixHttp(container.sandbox.socket_path)

        def is_busy() -> bool:
            other.request("POST", "/run", b'{"value": {}}')
            response = other.getresponse()
            busy = (403, b'{"error":"System not ready, status is running."}')
            return (response.status, response.read()) == busy

        await eventually(lambda: asyncio.to_thread(is_busy), "the run", DEADLINE_S)
        # The host goes away: the leash ends the run, although it never looks.
        assert container.http.sock is not None
        container.http.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises((http.client.HTTPException, OSError)):
            await running
        assert await asyncio.to_thread(other.sock.recv, 1) == b"", "the process is gone"
        other.close()
        assert container.rest() == ["stdout: begun"]

    async def test_a_sleeping_function_is_removed(
        self, engine: SandboxEngine, container: Container
    ) -> None:
        await container.init("import signal\ndef main(args):\n    signal.pause()\n")
        running = asyncio.create_task(container.run())
        await asyncio.wait([running], timeout=TICK_S)
        await engine.remove(container.sandbox)
        with pytest.raises((http.client.HTTPException, OSError)):
            await running
        await engine.remove(container.sandbox)


async def ends_when_its_host_is_silent(
    engine: SandboxEngine, kind: str, sleeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See that a sandbox of an engine whose silence is SILENCE_S lives by signs of life alone.

    ``sleeper`` sleeps for ``args.s`` seconds.
    """
    spec = SandboxSpec(f"case-{time.time_ns():x}", kind, 256, {"__OW_API_HOST": API_HOST})
    container = Container(await engine.start(spec))
    await container.init(sleeper)
    assert await container.run({"s": 2 * SILENCE_S}) == (200, {"slept": 2 * SILENCE_S})
    monkeypatch.setattr(os, "utime", lambda path: None)
    running = asyncio.create_task(container.run({"s": 60}))
    with pytest.raises((http.client.HTTPException, OSError)):
        await asyncio.wait_for(running, DEADLINE_S)
    container.http.close()
    await engine.remove(container.sandbox)


SILENCE_S = 2
PYTHON_SLEEPER = """
import time
def main(args):
    time.sleep(args["s"])
    return {"slept": args["s"]}
"""
NODEJS_SLEEPER = """
function main({ s }) {
  for (const end = Date.now() + 1000 * s; Date.now() < end; );
  return { slept: s }
}
"""
