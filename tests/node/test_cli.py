"""The ``acs`` command: what it sends, prints and ends with; then against a real server."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from node.house import WAITS
from node.server import rest_client, running_server
from waiting import Gate, wait_until

from acs_node.cli import main, output, sources
from acs_node.cli.connection import split_name
from acs_node.cli.options import parse_value
from acs_node.demo import ServerProcess

KEY = "some-uuid:some-secret"
ID = "0123456789abcdef0123456789abcdef"
HELLO = "def main(args):\n    return {'greeting': 'hello ' + args.get('name', 'you')}\n"

Handler = Callable[[httpx.Request], httpx.Response]


class FakeServer:
    """Answers every request with the next answer, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    @property
    def request(self) -> httpx.Request:
        (request,) = self.requests
        return request

    @property
    def body(self) -> Any:
        return json.loads(self.request.content)


def acs(server: Handler, *arguments: str, environ: dict[str, str] | None = None) -> Result:
    """Run a command against a fake server, with a key from the environment."""
    environment = {"ACS_AUTH": KEY, "WSK_CONFIG_FILE": "/nonexistent", "ACS_APIHOST": "http://fake"}
    result = CliRunner(env=environment | (environ or {})).invoke(
        main, arguments, obj=httpx.MockTransport(server)
    )
    assert KEY not in result.output
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(body: object, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body), headers=headers)


def refusal(status: int, text: str = "the reason") -> httpx.Response:
    return answer({"error": text, "code": "request-id"}, status)


def activation_answer(body: object, status: int = 200) -> httpx.Response:
    return answer(body, status, **{"x-openwhisk-activation-id": ID})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Values and names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('{"a":[1]}', {"a": [1]}),
        ('"quoted"', "quoted"),
        ("word", "word"),
        ("", ""),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("{broken", "{broken"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_values_are_json_when_they_are_json_and_strings_otherwise(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", (None, "a")),
        ("p/a", (None, "p/a")),
        ("/n/a", ("n", "a")),
        ("/_/p/a", ("_", "p/a")),
    ],
)
def test_names_may_carry_namespace_and_package(name: str, parts: tuple[object, object]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["/a", "a/b/c", "/n/p/a/x", "a//b", "/", "../a", ".", "a/"])
def test_other_names_are_usage_errors(name: str) -> None:
    server = FakeServer()
    result = acs(server, "action", "get", name)
    assert result.exit_code == 2
    assert "is not [/NAMESPACE/][PACKAGE/]NAME" in result.stderr
    assert not server.requests


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(None, ""), (0, "0ms"), (999, "999ms"), (1_500, "1.5s"), (123_250, "2m3.25s")],
)
def test_durations_are_short(duration_ms: int | None, text: str) -> None:
    assert output.format_duration(duration_ms) == text


# Where the server is and who asks


def test_options_beat_the_environment_which_beats_the_file(folder: Path) -> None:
    file = folder / "props"
    file.write_text("APIHOST=http://of-file\nAUTH=file:key\nNAMESPACE=file-ns\n")
    bare = {"WSK_CONFIG_FILE": str(file), "ACS_AUTH": "", "ACS_APIHOST": ""}

    def ask(*arguments: str, environ: dict[str, str]) -> tuple[str, str]:
        server = FakeServer(answer([]))
        assert acs(server, *arguments, environ=bare | environ).exit_code == 0
        credentials = server.request.headers["authorization"].removeprefix("Basic ")
        return str(server.request.url.copy_with(query=None)), base64.b64decode(credentials).decode()

    list_path = "/api/v1/namespaces/{}/actions"
    assert ask("action", "list", environ={}) == (
        "http://of-file" + list_path.format("file-ns"),
        "file:key",
    )
    environ = {"ACS_APIHOST": "http://of-env", "ACS_AUTH": "env:key", "ACS_NAMESPACE": "env-ns"}
    assert ask("action", "list", environ=environ) == (
        "http://of-env" + list_path.format("env-ns"),
        "env:key",
    )
    options = ("--apihost", "http://of-option", "--auth", "option:key", "--namespace", "option-ns")
    expected = ("http://of-option" + list_path.format("option-ns"), "option:key")
    assert ask(*options, "action", "list", environ=environ) == expected
    assert ask("action", "list", *options, environ=environ) == expected


def test_without_a_key_nothing_is_sent_and_the_places_are_named() -> None:
    server = FakeServer()
    result = acs(server, "action", "list", environ={"ACS_AUTH": ""})
    assert result.exit_code == 4
    assert "no key: looked at --auth, ACS_AUTH and /nonexistent" in result.stderr
    assert not server.requests


def test_a_settings_file_that_cannot_be_read_is_named(folder: Path) -> None:
    result = acs(FakeServer(), "action", "list", environ={"WSK_CONFIG_FILE": str(folder)})
    assert result.exit_code == 2
    assert result.stderr == f"acs: cannot read {folder}: Is a directory\n"


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"ACS_AUTH": "half-a-key"}, "the key from ACS_AUTH is not UUID:KEY"),
        ({"ACS_APIHOST": "ftp://x"}, "'ftp://x' is not [http[s]://]HOST[:PORT] (from ACS_APIHOST)"),
    ],
)
def test_wrong_settings_are_named_with_their_origin(environ: dict[str, str], text: str) -> None:
    result = acs(FakeServer(), "action", "list", environ=environ)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "half-a-key" not in result.stderr


# What goes wrong on the way


@pytest.mark.parametrize(
    ("failure", "exit_code", "text"),
    [
        (httpx.ConnectError("refused"), 4, "http://fake (from ACS_APIHOST): refused; is `acs "),
        (httpx.ConnectTimeout(""), 4, "no connection in time; is `acs standalone` running?"),
        (httpx.ReadTimeout(""), 4, "no answer within 30 s; it may still have been done"),
        (httpx.RemoteProtocolError("bad line"), 4, "bad line; does it speak HTTP there?"),
        (httpx.Response(200, text="<html>"), 4, "answered 200 without JSON"),
        (httpx.Response(302, text=""), 4, "answered 302 without JSON"),
        (refusal(401), 4, "(401); the key came from ACS_AUTH: is it this server's?"),
        (refusal(403), 4, "the reason (403); the key came from ACS_AUTH"),
        (refusal(404), 3, "the reason (404); `acs action list` shows what there is"),
        (refusal(409, "wrong\ncollection"), 3, "wrong collection (409)"),
        (refusal(503), 3, "the reason (503)"),
        (httpx.Response(500, text="oops"), 3, "Internal Server Error (500)"),
    ],
)
def test_failures_are_one_line_and_a_code(
    failure: httpx.Response | Exception, exit_code: int, text: str
) -> None:
    result = acs(FakeServer(failure), "action", "get", "hello")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.startswith("acs: cannot get action 'hello': ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_conflict_on_create_points_to_update(folder: Path) -> None:
    Path("f.py").write_text(HELLO)
    result = acs(FakeServer(refusal(409)), "action", "create", "hello", "f.py")
    assert result.exit_code == 3
    assert "`acs action update` replaces" in result.stderr


def test_a_missing_package_on_create_gets_no_hint_about_actions(folder: Path) -> None:
    Path("f.py").write_text(HELLO)
    result = acs(FakeServer(refusal(404)), "action", "create", "pack/hello", "f.py")
    assert result.exit_code == 3
    assert result.stderr == "acs: cannot create action 'pack/hello': the reason (404)\n"


def test_an_interrupt_ends_with_the_shells_code() -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    result = acs(interrupt, "action", "list")
    assert (result.exit_code, result.stderr) == (130, "acs: interrupted\n")


def test_the_exit_codes_are_in_the_help() -> None:
    help_text = acs(FakeServer(), "--help").stdout
    for code in (0, 1, 2, 3, 4, 124, 130):
        assert f"\n    {code:<4} " in help_text


def test_help_needs_neither_http_nor_tables_nor_the_server() -> None:
    heavy = {"httpx", "rich", "docker", "sqlalchemy", "uvicorn", "acs_core", "acs_node.demo"}
    code = f"import sys, acs_node.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Code


def test_create_sends_code_parameters_annotations_and_limits(folder: Path) -> None:
    Path("hello.py").write_text(HELLO)
    Path("params.json").write_text('{"a": 0, "b": [1]}')
    server = FakeServer(answer({"name": "hello"}))
    result = acs(
        server,
        *("action", "create", "pack/he llo", "hello.py", "--main", "start"),
        *("-p", "a", "-1", "-p", "c", "text", "-P", "params.json"),
        *("-a", "final", "true", "--timeout", "500", "--memory", "128", "--logsize", "1"),
        *("--concurrency", "2"),
    )
    assert (result.exit_code, result.stdout) == (0, "ok: created action pack/he llo\n")
    assert server.request.method == "PUT"
    path = b"/api/v1/namespaces/_/actions/pack/he%20llo?overwrite=false"
    assert server.request.url.raw_path == path
    assert server.request.headers["content-type"] == "application/json"
    assert server.body == {
        "exec": {"kind": "python:default", "code": HELLO, "main": "start"},
        "parameters": [
            {"key": "a", "value": -1},
            {"key": "b", "value": [1]},
            {"key": "c", "value": "text"},
        ],
        "annotations": [{"key": "final", "value": True}],
        "limits": {"timeout": 500, "memory": 128, "logs": 1, "concurrency": 2},
    }


def test_update_sends_only_what_is_given() -> None:
    server = FakeServer(answer({"name": "hello"}))
    result = acs(server, "action", "update", "/ns/hello", "--memory", "256", "--json")
    assert json.loads(result.stdout) == {"name": "hello"}
    assert server.request.url.raw_path == b"/api/v1/namespaces/ns/actions/hello?overwrite=true"
    assert server.body == {"limits": {"memory": 256}}


def test_update_without_a_source_takes_no_kind() -> None:
    result = acs(FakeServer(), "action", "update", "hello", "--kind", "python:3")
    assert result.exit_code == 2
    assert "need the SOURCE" in result.stderr


@pytest.mark.parametrize(
    ("name", "kind"),
    [("f.py", "python:default"), ("f.js", "nodejs:default"), ("F.MJS", "nodejs:default")],
)
def test_the_ending_tells_the_kind_unless_it_is_said(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.write_text("code")
    assert sources.read_exec(path, None, None) == {"kind": kind, "code": "code"}
    assert sources.read_exec(path, "other:1", None) == {"kind": "other:1", "code": "code"}


def make_tree(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
        os.utime(path, (1_000_000_000 + len(name), 1_000_000_000))


def test_a_folder_gives_the_same_zip_wherever_and_whenever_it_is_packed(folder: Path) -> None:
    names = ["__main__.py", "lib/b.py", "lib/a.py", "data.txt"]
    make_tree(folder / "one", names)
    make_tree(folder / "two", names[::-1])
    (folder / "two/lib/__pycache__").mkdir()
    (folder / "two/lib/__pycache__/a.pyc").write_text("differs")
    os.utime(folder / "two/data.txt", (0, 0))
    packed = sources.zip_folder(folder / "one")
    assert packed == sources.zip_folder(folder / "two")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["__main__.py", "data.txt", "lib/a.py", "lib/b.py"]
        assert archive.read("lib/a.py") == b"content of lib/a.py"
    assert sources.read_exec(folder / "one", None, None) == {
        "kind": "python:default",
        "code": base64.b64encode(packed).decode(),
    }


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    make_tree(folder / "tree", ["__main__.py", "lib/a.py"])
    (folder / "tree/lib/up").symlink_to("..")
    (folder / "tree/alias").symlink_to("lib")
    with zipfile.ZipFile(io.BytesIO(sources.zip_folder(folder / "tree"))) as archive:
        assert archive.namelist() == ["__main__.py", "alias/a.py", "lib/a.py"]


def test_programs_stay_executable(folder: Path) -> None:
    make_tree(folder / "tree", ["__main__.py", "tool"])
    (folder / "tree/tool").chmod(0o700)
    with zipfile.ZipFile(io.BytesIO(sources.zip_folder(folder / "tree"))) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert modes == {"__main__.py": 0o644, "tool": 0o755}


def test_code_that_cannot_be_sent_is_a_usage_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(folder, ["empty/readme", "node/package.json", "f.txt", "big/__main__.py", "big.py"])
    (folder / "latin.py").write_bytes(b"\xe9")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 cut off")
    monkeypatch.setattr(sources, "CODE_BYTES_MAX", 20)

    def create(*arguments: str) -> str:
        server = FakeServer()
        result = acs(server, "action", "create", "a", *arguments)
        assert result.exit_code == 2
        assert not server.requests
        return result.stderr

    assert "cannot read absent.py: No such file or directory" in create("absent.py")
    assert "latin.py is neither UTF-8 text nor a zip" in create("latin.py")
    assert "f.txt: its name does not tell the kind; say --kind" in create("f.txt")
    assert "broken.zip is no zip" in create("broken.zip")
    (folder / "big.py").write_text("x" * 21)
    assert "big.py is too large" in create("big.py")
    assert "big is too large" in create("big")
    monkeypatch.setattr(sources, "CODE_BYTES_MAX", 10_000)
    assert "empty has no __main__.py (python), package.json or index.js" in create("empty")
    assert "node has no __main__.py at its root" in create("node", "--kind", "python:3")
    assert sources.read_exec(folder / "node", None, None)["kind"] == "nodejs:default"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        ("{", "is no JSON"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[1]", "does not hold a JSON object"),
    ],
)
def test_a_bad_parameter_file_is_a_usage_error(
    folder: Path, content: str | None, text: str
) -> None:
    if content is not None:
        Path("p.json").write_text(content)
    result = acs(FakeServer(), "action", "invoke", "hello", "-P", "p.json")
    assert result.exit_code == 2
    assert "p.json" in result.stderr
    assert text in result.stderr


# Actions


def entity(code: str, binary: bool = False) -> dict[str, Any]:
    return {
        "namespace": "guest",
        "name": "hello",
        "version": "0.0.2",
        "updated": 1_700_000_000_000,
        "exec": {"kind": "python:3", "code": code, "binary": binary},
        "annotations": [{"key": "exec", "value": "python:3"}],
    }


def test_get_prints_the_action() -> None:
    server = FakeServer(answer(entity(HELLO)))
    assert json.loads(acs(server, "action", "get", "hello").stdout) == entity(HELLO)
    assert server.request.url.raw_path.endswith(b"/actions/hello?code=true")


@pytest.mark.parametrize(
    ("code", "binary", "name", "content"),
    [(HELLO, False, "hello.py", HELLO.encode()), ("UEs=", True, "hello.zip", b"PK")],
)
def test_get_saves_the_code_and_overwrites_nothing(
    folder: Path, code: str, binary: bool, name: str, content: bytes
) -> None:
    server = FakeServer(answer(entity(code, binary)), answer(entity("AAAA", binary)))
    result = acs(server, "action", "get", "p/hello", "--save")
    assert result.stdout == f"ok: saved the code of action p/hello to {name}\n"
    assert Path(name).read_bytes() == content
    result = acs(server, "action", "get", "p/hello", "--save")
    assert (result.exit_code, result.stderr) == (2, f"acs: {name} exists; move it away first\n")
    assert Path(name).read_bytes() == content


def test_actions_are_a_table_or_json_or_a_number() -> None:
    result = acs(FakeServer(answer([entity(HELLO)])), "action", "list")
    header, row = result.stdout.splitlines()
    assert header.split() == ["Action", "Kind", "Version", "Updated"]
    assert row.split()[:3] == ["/guest/hello", "python:3", "0.0.2"]

    server = FakeServer(answer([entity(HELLO)]))
    result = acs(server, "action", "list", "--json", "--limit", "5", "--skip", "2")
    assert json.loads(result.stdout) == [entity(HELLO)]
    assert server.request.url.query == b"limit=5&skip=2"

    server = FakeServer(answer({"actions": 7}))
    assert acs(server, "action", "list", "--count").stdout == "7\n"
    assert server.request.url.query == b"skip=0&count=true"


def test_a_limit_out_of_range_is_a_usage_error() -> None:
    assert acs(FakeServer(), "action", "list", "--limit", "201").exit_code == 2


def test_delete_says_so() -> None:
    server = FakeServer(answer(entity(HELLO)))
    assert acs(server, "action", "delete", "hello").stdout == "ok: deleted action hello\n"
    assert server.request.method == "DELETE"


# Invocations


RECORD = {
    "activationId": ID,
    "response": {"status": "success", "success": True, "result": {"안녕": "\ud800"}},
}
FAILED = {
    "activationId": ID,
    "response": {"status": "application error", "result": {"error": "no\nluck"}},
}


def test_an_invocation_without_waiting_prints_the_id() -> None:
    server = FakeServer(activation_answer({"activationId": ID}, 202))
    result = acs(server, "action", "invoke", "hello", "-p", "n", "1")
    assert (result.exit_code, result.stdout) == (0, f"ok: invoked action hello with id {ID}\n")
    assert server.request.method == "POST"
    assert server.request.url.query == b"blocking=false&result=false"
    assert server.body == {"n": 1}

    server = FakeServer(activation_answer({"activationId": ID}, 202))
    result = acs(server, "action", "invoke", "hello", "--json")
    assert json.loads(result.stdout) == {"activationId": ID}


def test_a_blocking_invocation_prints_the_record() -> None:
    server = FakeServer(activation_answer(RECORD), activation_answer(RECORD))
    said, _, record = acs(server, "action", "invoke", "hello", "-b").stdout.partition("\n")
    assert said == f"ok: invoked action hello with id {ID}"
    assert json.loads(record) == RECORD
    assert json.loads(acs(server, "action", "invoke", "hello", "-b", "--json").stdout) == RECORD


def test_a_result_is_printed_alone_and_arrays_are_results() -> None:
    server = FakeServer(activation_answer(["a", 1]))
    result = acs(server, "action", "invoke", "hello", "-r", "--timeout", "100")
    assert json.loads(result.stdout) == ["a", 1]
    assert server.request.url.query == b"blocking=true&result=true&timeout=100"
    assert server.request.extensions["timeout"]["read"] == pytest.approx(15.1)


@pytest.mark.parametrize(
    ("option", "body", "status", "said"),
    [
        ("-b", FAILED, 502, "application error in activation {ID}: no luck"),
        ("-b", FAILED, 500, "application error in activation {ID}: no luck"),
        ("-r", {"error": {"code": 7}}, 502, 'an error in activation {ID}: {"code": 7}'),
        (
            "-b",
            {"activationId": ID, "response": {}},
            502,
            "an error in activation {ID}: no details",
        ),
    ],
)
def test_an_activation_that_ends_with_an_error_is_printed_and_exits_1(
    option: str, body: object, status: int, said: str
) -> None:
    result = acs(FakeServer(activation_answer(body, status)), "action", "invoke", "hello", option)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == body
    assert result.stderr == f"acs: action 'hello' ended with {said.replace('{ID}', ID)}\n"


def test_a_server_error_is_no_failed_activation() -> None:
    assert acs(FakeServer(refusal(500)), "action", "invoke", "hello", "-r").exit_code == 3


@pytest.mark.parametrize("option", ["-b", "-r"])
def test_an_activation_that_still_runs_exits_124(option: str) -> None:
    running = {"activationId": ID}
    server = FakeServer(activation_answer(running, 202), activation_answer(running, 202))
    result = acs(server, "action", "invoke", "hello", option)
    assert (result.exit_code, result.stdout) == (124, "")
    assert f"still runs as {ID}; `acs activation get {ID}`" in result.stderr
    result = acs(server, "action", "invoke", "hello", option, "--json")
    assert result.exit_code == 124
    assert json.loads(result.stdout) == running


@pytest.mark.parametrize("arguments", [["--timeout", "5"], ["-b", "--timeout", "60001"]])
def test_a_wait_without_waiting_or_out_of_range_is_a_usage_error(arguments: list[str]) -> None:
    assert acs(FakeServer(), "action", "invoke", "hello", *arguments).exit_code == 2


# Activations


def summary(status: int = 0, **more: object) -> dict[str, Any]:
    annotations: list[dict[str, object]] = [
        {"key": "kind", "value": "python:3"},
        {"key": "path", "value": "guest/p/hello"},
    ]
    if "initTime" in more:
        annotations.append({"key": "initTime", "value": more.pop("initTime")})
    return {
        "namespace": "guest",
        "name": "hello",
        "version": "0.0.1",
        "activationId": ID,
        "start": 1_700_000_000_000,
        "statusCode": status,
        "annotations": annotations,
        **more,
    }


def test_activations_are_the_table_that_people_know() -> None:
    rows = [summary(2, duration=1_234, initTime=30), summary(0, duration=2), summary(0)]
    server = FakeServer(answer(rows))
    result = acs(server, "activation", "list", "--since", "1", "--upto", "2", "--name", "p/hello")
    header, cold, warm, unfinished = result.stdout.splitlines()
    assert header.split("  ")[0] == "Datetime"
    assert header.split() == (
        ["Datetime", "Activation", "ID", "Kind", "Start", "Duration", "Status", "Entity"]
    )
    error = ["cold", "1.234s", "developer", "error", "guest/p/hello:0.0.1"]
    assert cold.split()[2:] == [ID, "python:3", *error]
    assert warm.split()[2:] == [ID, "python:3", "warm", "2ms", "success", "guest/p/hello:0.0.1"]
    assert unfinished.split()[4:] == ["warm", "success", "guest/p/hello:0.0.1"]
    assert server.request.url.query == b"limit=30&skip=0&since=1&upto=2&name=p%2Fhello"


def test_an_unknown_status_and_missing_annotations_do_not_break_the_table() -> None:
    row = output.activation_row(summary(9) | {"annotations": []})
    assert row[2:4] == ("unknown", "warm")
    assert row[5:] == ("status 9", "guest/hello:0.0.1")


def test_activations_are_counted() -> None:
    server = FakeServer(answer({"activations": 3}))
    assert acs(server, "activation", "list", "--count").stdout == "3\n"


def test_logs_are_plain_lines() -> None:
    body = {"logs": ["2024-01-01T00:00:00.000000000Z stdout: hi", "t stderr: \udcff"]}
    server = FakeServer(answer(body), answer(body))
    result = acs(server, "activation", "logs", ID)
    assert result.stdout == "2024-01-01T00:00:00.000000000Z stdout: hi\nt stderr: \\udcff\n"
    assert json.loads(acs(server, "activation", "logs", ID, "--json").stdout) == body
    assert server.requests[0].url.path == f"/api/v1/namespaces/_/activations/{ID}/logs"


def test_a_result_comes_alone_or_with_its_status() -> None:
    body = {"result": {"a": 1}, "status": "success", "success": True, "size": 7}
    server = FakeServer(answer(body), answer(body))
    assert json.loads(acs(server, "activation", "result", ID).stdout) == {"a": 1}
    assert json.loads(acs(server, "activation", "result", ID, "--json").stdout) == body


def test_last_asks_for_the_id_first() -> None:
    server = FakeServer(answer([summary()]), answer(RECORD))
    assert json.loads(acs(server, "activation", "get", "--last").stdout) == RECORD
    assert server.requests[0].url.query == b"limit=1&skip=0"
    assert server.requests[1].url.path == f"/api/v1/namespaces/_/activations/{ID}"


def test_last_without_activations_is_not_found() -> None:
    result = acs(FakeServer(answer([])), "activation", "logs", "--last")
    assert result.exit_code == 3
    assert "there is no activation yet" in result.stderr


def test_a_missing_record_may_be_of_a_running_activation() -> None:
    result = acs(FakeServer(refusal(404)), "activation", "get", ID)
    assert result.exit_code == 3
    assert "it may still run" in result.stderr


@pytest.mark.parametrize("arguments", [[], [ID, "--last"], ["a/b"]])
def test_one_activation_is_named_in_one_way(arguments: list[str]) -> None:
    server = FakeServer()
    assert acs(server, "activation", "get", *arguments).exit_code == 2
    assert not server.requests


# Images and version


def test_without_an_engine_images_exit_4() -> None:
    for command in ("list", "build"):
        environ = {"DOCKER_HOST": "unix:///nonexistent.sock"}
        result = acs(FakeServer(), "images", command, environ=environ)
        assert result.exit_code == 4
        assert "/nonexistent.sock" in result.stderr
        assert result.stderr.count("\n") == 1


def test_the_version_says_what_it_runs_on() -> None:
    assert acs(FakeServer(), "version").stdout.startswith("acs ")
    said = json.loads(acs(FakeServer(), "version", "--json").stdout)
    assert said["core"] in ("compiled", "plain")
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))


# Against a real server


class RealCli:
    """Runs commands as a user of a server would: settings come from the file that it wrote."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def __call__(self, *arguments: str, exits: int = 0) -> Result:
        result = self.attempt(*arguments)
        assert result.exit_code == exits, result.output
        return result

    def json(self, *arguments: str, exits: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", exits=exits).stdout)

    def json_when_there(self, *arguments: str) -> Any:
        """Wait for what the server writes after its answer, such as a record."""

        def ask() -> Result | None:
            result = self.attempt(*arguments, "--json")
            assert result.exit_code in (0, 3), result.output
            return result if result.exit_code == 0 else None

        return json.loads(wait_until(ask, f"acs {' '.join(arguments)}").stdout)

    def attempt(self, *arguments: str) -> Result:
        environ = {
            "WSK_CONFIG_FILE": str(self.server.home / ".wskprops"),
            "ACS_AUTH": "",
            "ACS_APIHOST": "",
            "HTTP_PROXY": "http://127.0.0.1:9",  # must not come between this machine and itself
        }
        result = CliRunner(env=environ).invoke(main, arguments)
        assert self.server.auth not in result.output
        return result


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server() as server:
        yield server


@pytest.fixture
def real(server: ServerProcess, folder: Path) -> RealCli:
    return RealCli(server)


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_the_life_of_an_action(real: RealCli) -> None:
    hello = write("hello.py", HELLO)
    created = real("action", "create", "life", hello, "-p", "name", "Ann")
    assert created.stdout == "ok: created action life\n"
    assert "already exists" in real("action", "create", "life", hello, exits=3).stderr
    assert json.loads(real("action", "invoke", "life", "-r").stdout) == {"greeting": "hello Ann"}
    assert real.json("action", "invoke", "life", "-r", "-p", "name", "Bob") == {
        "greeting": "hello Bob"
    }

    changed = real.json("action", "update", "life", "--memory", "128")
    assert changed["limits"]["memory"] == 128
    assert changed["version"] == "0.0.2"
    got = real.json("action", "get", "life")
    assert got["exec"] == {"kind": "python:3", "code": HELLO, "binary": False}
    assert got["parameters"] == [{"key": "name", "value": "Ann"}]
    real("action", "get", "life", "--save")
    assert Path("life.py").read_text() == HELLO

    assert "/guest/life" in real("action", "list").stdout
    listed = real.json("action", "list")
    assert [entity["name"] for entity in listed].count("life") == 1
    assert real("action", "list", "--count").stdout == f"{len(listed)}\n"

    real("action", "delete", "life")
    for command in ("get", "delete", "invoke"):
        assert "does not exist" in real("action", command, "life", exits=3).stderr


def test_an_activation_can_be_looked_at_afterwards(real: RealCli) -> None:
    code = (
        "import sys\ndef main(args):\n    print('to out')\n    print('to err', file=sys.stderr)\n"
    )
    real("action", "update", "speaks", write("f.py", f"{code}    return args\n"))
    record = real.json("action", "invoke", "speaks", "-b", "-p", "n", "1")
    assert record["response"]["status"] == "success"
    assert record["response"]["result"] == {"n": 1}
    activation_id = record["activationId"]

    stored = real.json_when_there("activation", "get", activation_id)
    assert stored["response"] == record["response"]
    assert json.loads(real("activation", "result", activation_id).stdout) == {"n": 1}
    assert real.json("activation", "result", activation_id)["status"] == "success"
    logs = real("activation", "logs", activation_id).stdout
    assert sorted(line.partition(" ")[2].strip() for line in logs.splitlines()) == [
        "stderr: to err",
        "stdout: to out",
    ]

    rows = real("activation", "list", "--name", "speaks").stdout.splitlines()[1:]
    (row,) = rows
    assert row.split()[2:5] == [activation_id, "python:3", "cold"]
    assert row.split()[6:] == ["success", "guest/speaks:0.0.1"]
    assert real("activation", "list", "--name", "speaks", "--count").stdout == "1\n"
    later = str(record["start"] + 1)
    assert real.json("activation", "list", "--name", "speaks", "--since", later) == []


def test_last_is_the_newest_activation(real: RealCli) -> None:
    real("action", "update", "newest", write("f.py", HELLO))
    invoked = real.json("action", "invoke", "newest", "-b")
    real.json_when_there("activation", "get", invoked["activationId"])
    assert real.json("activation", "get", "--last")["activationId"] == invoked["activationId"]
    assert real.json("activation", "logs", "--last") == {"logs": []}


def test_an_invocation_without_waiting_ends_in_a_record(real: RealCli) -> None:
    real("action", "update", "later", write("f.py", HELLO))
    said = real("action", "invoke", "later", "-p", "name", "Eve").stdout
    activation_id = said.rpartition(" ")[2].strip()
    assert said == f"ok: invoked action later with id {activation_id}\n"
    stored = real.json_when_there("activation", "get", activation_id)
    assert stored["response"]["result"] == {"greeting": "hello Eve"}


def test_an_activation_slower_than_the_wait_exits_124(real: RealCli) -> None:
    # It runs until the test lets it: no guess about how fast this machine is.
    real("action", "update", "slow", write("f.py", WAITS))
    go = Gate(Path("go").absolute())
    arguments = ("action", "invoke", "slow", "-r", "--timeout", "50", "-p", "go", str(go))
    activation_id = real.json(*arguments, exits=124)["activationId"]
    go.open()
    stored = real.json_when_there("activation", "get", activation_id)
    assert stored["response"]["status"] == "success"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def main(args):\n    return {'error': 'sorry'}\n", "application error"),
        ("def main(args):\n    return 'text'\n", "action developer error"),
        ("def main(args:\n", "action developer error"),
    ],
)
def test_functions_that_fail_exit_1(real: RealCli, code: str, status: str) -> None:
    real("action", "update", "fails", write("f.py", code))
    assert f"ended with {status} in" in real("action", "invoke", "fails", "-b", exits=1).stderr
    assert "error" in real.json("action", "invoke", "fails", "-r", exits=1)


def test_folders_and_zips_are_actions(real: RealCli) -> None:
    tree = Path("tree/lib")
    tree.mkdir(parents=True)
    write("tree/lib/words.py", "GREETING = 'packed'\n")
    write(
        "tree/__main__.py",
        "from lib import words\ndef main(args):\n    return {'said': words.GREETING}\n",
    )
    real("action", "update", "packed", "tree")
    assert real.json("action", "invoke", "packed", "-r") == {"said": "packed"}
    assert real.json("action", "get", "packed")["exec"]["binary"] is True

    real("action", "get", "packed", "--save")
    real("action", "update", "repacked", "packed.zip")
    assert real.json("action", "invoke", "repacked", "-r") == {"said": "packed"}


def test_the_function_to_call_can_be_named(real: RealCli) -> None:
    code = write("f.py", "def other(args):\n    return {'called': 'other'}\n")
    real("action", "update", "named", code, "--main", "other", "--kind", "python:3")
    assert real.json("action", "invoke", "named", "-r") == {"called": "other"}


def test_what_the_server_refuses_exits_3_and_what_it_denies_4(real: RealCli) -> None:
    code = write("f.py", HELLO)
    unknown = real("action", "create", "bad", code, "--kind", "cobol:1", exits=3).stderr
    assert "'cobol:1' is not supported" in unknown
    assert (
        "below allowed" in real("action", "create", "bad", code, "--timeout", "1", exits=3).stderr
    )
    assert "32" in real("activation", "get", "short", exits=3).stderr
    real("activation", "get", "0" * 32, exits=3)
    denied = real("action", "list", "--auth", "nobody:nothing", exits=4).stderr
    assert "the key came from --auth" in denied
    assert "(403)" in real("action", "get", "/somebody-else/f", exits=4).stderr


def test_the_server_keeps_actions_over_a_restart_and_ends_on_sigint() -> None:
    with running_server() as server:
        with rest_client(server) as client:
            body = {"exec": {"kind": "python:3", "code": HELLO}}
            assert client.put("namespaces/_/actions/kept", json=body).status_code == 200
        key = server.auth
        os.kill(server.pid, signal.SIGINT)
        wait_until(lambda: not server.is_running(), "the server's end")
        assert server.stop() == 0, server.output
        assert RealCli(server)("action", "list", exits=4).stderr.endswith(
            "is `acs standalone` running? Another server is named by --apihost\n"
        )
        server.start()
        assert server.auth == key
        kept = RealCli(server).json("action", "invoke", "kept", "-r", "-p", "name", "again")
        assert kept == {"greeting": "hello again"}
