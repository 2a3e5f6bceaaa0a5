"""Packages, triggers, rules, sequences, deployment and settings by the ``acs`` command."""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from node.server import rest_client, running_server
from waiting import wait_until

from acs_node.cli import activations, main
from acs_node.demo import ServerProcess

ADD = (
    "def main(args):\n    print('added')\n    return {'n': args.get('n', 0) + args.get('by', 1)}\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server() as server:
        yield server


class Acs:
    """Runs commands against the server, in a folder of its own."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        (folder / "add.py").write_text(ADD)

    def __call__(self, *arguments: str, exits: int = 0) -> str:
        result = self.run(*arguments)
        assert result.exit_code == exits, result.output
        return result.stdout if exits == 0 else result.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def run(self, *arguments: str) -> Result:
        environment = {
            "ACS_AUTH": self.server.auth,
            "ACS_APIHOST": self.server.url,
            "WSK_CONFIG_FILE": "/nonexistent",
        }
        return CliRunner(env=environment).invoke(main, arguments)


@pytest.fixture
def acs(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Acs]:
    monkeypatch.chdir(tmp_path)
    yield Acs(server, tmp_path)
    with rest_client(server) as client:
        for collection in ("rules", "triggers", "actions", "packages"):
            for each in client.get(f"namespaces/_/{collection}?limit=0").json():
                _, _, package = each["namespace"].partition("/")
                path = f"{package}/{each['name']}" if package else each["name"]
                client.delete(f"namespaces/_/{collection}/{path}").raise_for_status()


# --- packages ------------------------------------------------------------------------------------


def test_a_package_from_creation_to_deletion(acs: Acs) -> None:
    assert acs("package", "create", "p", "-p", "by", "5", "-a", "x", "1") == (
        "ok: created package p\n"
    )
    acs("action", "create", "p/add", "add.py")
    assert acs("package", "bind", "/_/p", "b", "-p", "n", "1") == "ok: created binding b\n"
    assert json.loads(acs("action", "invoke", "-r", "b/add")) == {"n": 6}
    assert acs("package", "update", "p", "--shared") == "ok: updated package p\n"
    assert json.loads(acs("package", "get", "p"))["actions"][0]["name"] == "add"
    rows = {line.split()[0]: line.split()[1:4] for line in acs("package", "list").splitlines()[1:]}
    assert rows["/guest/p"][:2] == ["shared", "0.0.2"]
    assert rows["/guest/b"][:2] == ["private", "/guest/p"]
    assert acs("package", "list", "--count") == "2\n"
    assert "shared" in acs("package", "list", "/guest")
    acs("package", "update", "p", "--shared", "no")
    assert acs.json("package", "get", "p")["publish"] is False
    assert "Package not empty (contains 1 entity)" in acs("package", "delete", "p", exits=3)
    assert acs("package", "delete", "b") == "ok: deleted package b\n"
    assert acs("package", "delete", "p", "--force") == "ok: deleted package p\n"
    assert "already exists" in acs("package", "create", "q") + acs(
        "package", "create", "q", exits=3
    )


# --- triggers and rules --------------------------------------------------------------------------


def test_a_trigger_and_its_rule(acs: Acs) -> None:
    acs("action", "create", "add", "add.py")
    assert acs("trigger", "create", "t", "-p", "by", "2") == "ok: created trigger t\n"
    assert acs("trigger", "fire", "t") == "ok: trigger t has no active rule, nothing was invoked\n"
    assert acs("rule", "create", "r", "t", "/_/add") == "ok: created rule r\n"
    fired = acs.json("trigger", "fire", "t", "-p", "n", "1")
    line = json.loads(acs("activation", "logs", fired["activationId"]).splitlines()[0])

    def ended() -> bool:
        result = acs.run("activation", "result", line["activationId"])
        return result.exit_code == 0 and json.loads(result.stdout) == {"n": 3}

    wait_until(ended, "the end of what was fired")
    assert acs("trigger", "fire", "t").startswith("ok: fired trigger t with id ")
    assert acs("rule", "status", "r") == "ok: rule r is active\n"
    assert acs("rule", "disable", "r") == "ok: disabled rule r\n"
    assert acs.json("rule", "status", "r") == {"status": "inactive"}
    (row,) = acs("rule", "list").splitlines()[1:]
    assert row.split()[:4] == ["/guest/r", "/guest/t", "/guest/add", "inactive"]
    assert acs("rule", "list", "--count") == "1\n"
    assert acs("rule", "enable", "r") == "ok: enabled rule r\n"
    acs("trigger", "create", "u")
    assert acs("rule", "update", "r", "u", "add") == "ok: updated rule r\n"
    assert json.loads(acs("rule", "get", "r"))["trigger"]["name"] == "u"
    assert acs("trigger", "update", "t", "-a", "x", "1") == "ok: updated trigger t\n"
    assert json.loads(acs("trigger", "get", "t"))["annotations"] == [{"key": "x", "value": 1}]
    assert acs("trigger", "list").splitlines()[1].split()[:2] == ["/guest/t", "0.0.2"]
    assert acs("trigger", "list", "--count") == "2\n"
    assert acs("rule", "delete", "r") == "ok: deleted rule r\n"
    assert acs("trigger", "delete", "t") == "ok: deleted trigger t\n"
    assert "does not exist" in acs("rule", "create", "r", "t", "add", exits=3)


# --- actions: sequences, URLs --------------------------------------------------------------------


def test_a_sequence_is_made_of_names(acs: Acs) -> None:
    acs("action", "create", "add", "add.py")
    assert acs("action", "create", "s", "--sequence", "add, /_/add") == "ok: created action s\n"
    assert json.loads(acs("action", "invoke", "-r", "s")) == {"n": 2}
    acs("action", "update", "s", "--sequence", "add")
    assert acs.json("action", "get", "s")["exec"]["components"] == ["/guest/add"]
    for wrong in ((), ("add.py", "--sequence", "add")):
        assert "either the SOURCE" in acs("action", "create", "x", *wrong, exits=2)
    for wrong in (("--sequence", "add", "--kind", "python:3"), ("add.py", "--sequence", "add")):
        assert "no --sequence" in acs("action", "update", "s", *wrong, exits=2)


def test_the_url_of_an_action_tells_whether_it_needs_a_key(acs: Acs) -> None:
    api = f"{acs.server.url}/api/v1"
    acs("action", "create", "my add", "add.py")
    acs("package", "create", "p")
    acs("action", "create", "p/web", "add.py", "--web", "true", "--web-secure", "secret")
    acs("action", "create", "raw", "add.py", "--web", "raw")
    assert acs("action", "get", "my add", "--url") == f"{api}/namespaces/_/actions/my%20add\n"
    assert acs("action", "get", "p/web", "--url") == f"{api}/web/guest/p/web\n"
    assert acs.json("action", "get", "raw", "--url") == {"url": f"{api}/web/guest/default/raw"}
    notes = {
        each["key"]: each["value"] for each in acs.json("action", "get", "p/web")["annotations"]
    }
    assert notes.items() >= {
        "web-export": True, "raw-http": False, "final": True, "require-whisk-auth": "secret",
    }.items()  # fmt: skip
    acs("action", "update", "p/web", "--web", "no")
    assert "/namespaces/_/actions/p/web" in acs("action", "get", "p/web", "--url")


# --- polling -------------------------------------------------------------------------------------


def test_polling_shows_what_ended_once(acs: Acs, monkeypatch: pytest.MonkeyPatch) -> None:
    acs("action", "create", "polled", "add.py")
    acs("action", "create", "other", "add.py")
    acs("action", "invoke", "-r", "polled")
    rounds = []

    def instead_of_sleeping(_: float) -> None:
        rounds.append(acs.run("action", "invoke", "-r", "polled" if len(rounds) else "other"))
        runs = f"{len(rounds)}\n"  # one ran before, and the first of these was the other's
        count = ("activation", "list", "--name", "polled", "--count")
        wait_until(lambda: acs(*count) == runs, "the record of what was invoked")
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(activations, "sleep", instead_of_sleeping)
    result = acs.run("activation", "poll", "--since-seconds", "60", "polled")
    assert result.exit_code == 130
    assert result.stdout.count("Activation: 'polled' (") == 2
    assert result.stdout.count("stdout: added") == 2
    assert "'other'" not in result.stdout
    ids = [line for line in result.stdout.splitlines() if line.startswith("Activation:")]
    assert len(set(ids)) == 2


def test_polling_ends_after_its_time(acs: Acs, monkeypatch: pytest.MonkeyPatch) -> None:
    acs("action", "create", "add", "add.py")
    acs("action", "invoke", "-r", "add")
    wait_until(lambda: acs("activation", "list", "--name", "add", "--count") != "0\n", "its record")
    monkeypatch.setattr(activations, "POLL_S", 1e-6)
    record = json.loads(
        acs("activation", "poll", "--since-seconds", "60", "--exit", "0", "--json", "add")
        .split("\n}\n")[0] + "\n}"
    )  # fmt: skip
    assert record["name"] == "add"


# --- settings ------------------------------------------------------------------------------------


def settings_command(path: Path, *arguments: str, **environ: str) -> Result:
    environment = {"WSK_CONFIG_FILE": str(path), **environ}
    return CliRunner(env=environment).invoke(main, ["property", *arguments])


def test_settings_are_shown_set_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "props"
    path.write_text("# mine\nAPIVERSION=v1\nAUTH=old:key\n")
    done = settings_command(path, "set", "--auth", "some:key", "--apihost", "http://there:1")
    assert done.stdout == f"ok: set APIHOST, AUTH in {path}\n"
    assert path.read_text() == "# mine\nAPIVERSION=v1\nAPIHOST=http://there:1\nAUTH=some:key\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = json.loads(settings_command(path, "get", "--json").stdout)
    assert shown == {"APIHOST": "http://there:1", "AUTH": "some:key", "NAMESPACE": "_"}
    shown = json.loads(settings_command(path, "get", "--json", "--auth", ACS_AUTH="a:b").stdout)
    assert shown == {"AUTH": "a:b"}
    assert "http://there:1" in settings_command(path, "get", "--apihost").stdout
    done = settings_command(path, "unset", "--auth")
    assert done.stdout == f"ok: removed AUTH from {path}\n"
    assert path.read_text() == "# mine\nAPIVERSION=v1\nAPIHOST=http://there:1\n"
    new = tmp_path / "new"
    settings_command(new, "set", "--namespace", "dev", "--json")
    assert new.read_text() == "NAMESPACE=dev\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("set",), "give at least one of --apihost, --auth, --namespace"),
        (("unset",), "give at least one of --apihost, --auth, --namespace"),
        (("set", "--apihost", "ftp://x"), "is not [http[s]://]HOST[:PORT]"),
        (("set", "--auth", "nonsense"), "the key is not UUID:KEY"),
        (("set", "--namespace", "a\nAUTH=x:y"), "a setting is one line"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    path = tmp_path / "props"
    result = settings_command(path, *arguments)
    assert (result.exit_code, text in result.stderr) == (2, True), result.stderr
    assert not path.exists()


def test_a_settings_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for arguments in (("get",), ("set", "--namespace", "x"), ("unset", "--auth")):
        result = settings_command(tmp_path, *arguments)
        assert (result.exit_code, str(tmp_path) in result.stderr) == (2, True)


# --- deployment ----------------------------------------------------------------------------------

MANIFEST = """
packages:
  default:
    actions:
      add:
        function: add.py
        inputs: {by: 2}
        limits: {timeout: 1000, memorySize: 128, logSize: 1}
        annotations: {note: mine}
        web: true
    triggers:
      t: {inputs: {n: 1}}
    rules:
      r: {trigger: t, action: add}
  tools:
    public: true
    inputs:
      by: {type: integer, value: 3}
    actions:
      add: {function: add.py, runtime: "python:3", main: main}
    sequences:
      twice: {actions: "add, add"}
      both: {actions: [twice, /_/add]}
"""


def test_a_manifest_is_deployed_and_deployed_again(acs: Acs) -> None:
    (acs.folder / "manifest.yaml").write_text(MANIFEST)
    assert acs("deploy", "--dry-run").splitlines()[0] == "ok: would update package tools"
    assert acs.json("action", "list") == []
    for _ in range(2):
        done = acs("deploy", "-m", "manifest.yaml").splitlines()
        assert done == [
            "ok: updated package tools",
            "ok: updated action add",
            "ok: updated action tools/add",
            "ok: updated action tools/twice",
            "ok: updated action tools/both",
            "ok: updated trigger t",
            "ok: updated rule r",
        ]
    assert json.loads(acs("action", "invoke", "-r", "tools/both")) == {"n": 8}
    action = acs.json("action", "get", "add")
    assert (action["version"], action["limits"]["timeout"]) == ("0.0.2", 1000)
    assert (action["limits"]["memory"], action["limits"]["logs"]) == (128, 1)
    notes = {each["key"]: each["value"] for each in action["annotations"]}
    assert notes.items() >= {"note": "mine", "web-export": True}.items()
    package = acs.json("package", "get", "tools")
    assert package["publish"] is True
    assert package["parameters"] == [{"key": "by", "value": 3}]
    rule = acs.json("rule", "get", "r")
    assert (rule["trigger"]["name"], rule["action"]["name"]) == ("t", "add")
    kinds = acs.json("deploy", "-m", str(acs.folder))
    assert {"kind": "rule", "name": "r"} in kinds


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1]", "manifest.yaml is no mapping of names"),
        ("{", "manifest.yaml is no YAML: "),
        ("project: {name: x}", "manifest.yaml has no packages"),
        ("packages: {p: 1}", "packages.p is no mapping"),
        ("packages: {p: {actions: {a: {}}}}", "packages.p.actions.a has no function"),
        ("packages: {p: {actions: {a: {function: x.py}}}}", "actions.a: cannot read "),
        (
            "packages: {p: {actions: {a: {function: add.py, limits: {cpu: 1}}}}}",
            "actions.a.limits has 'cpu'; it may have timeout",
        ),
        (
            "packages: {p: {actions: {a: {function: add.py, web: maybe}}}}",
            "actions.a.web is 'maybe'; it may be true, false or raw",
        ),
        ("packages: {p: {sequences: {s: {actions: 1}}}}", "sequences.s.actions is to be a list"),
        ("packages: {p: {sequences: {s: {actions: a/b/c}}}}", "sequences.s: 'a/b/c' is not"),
        ("packages: {p: {rules: {r: {trigger: t}}}}", "rules.r has no action"),
        ("packages: {1: {}}", "packages is no mapping of names"),
    ],
)
def test_a_manifest_with_a_fault_changes_nothing(acs: Acs, text: str, fault: str) -> None:
    (acs.folder / "manifest.yaml").write_text(text)
    assert fault in acs("deploy", exits=2)
    assert acs.json("package", "list") == []


def test_a_manifest_that_is_not_there_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = CliRunner().invoke(main, ["deploy", "-m", folder])
        assert (result.exit_code, "there is no manifest.yaml in" in result.stderr) == (2, True)
        result = CliRunner().invoke(main, ["deploy", "-m", f"{folder}/x.yaml"])
        assert (result.exit_code, "cannot read" in result.stderr) == (2, True)


def test_an_answer_that_may_be_empty_is_still_judged() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"error": "the reason", "code": "x"})

    environment = {"ACS_AUTH": "a:b", "WSK_CONFIG_FILE": "/nonexistent"}
    result = CliRunner(env=environment).invoke(
        main, ["rule", "enable", "r"], obj=httpx.MockTransport(refuse)
    )
    assert (result.exit_code, "the reason (404)" in result.stderr) == (3, True)
