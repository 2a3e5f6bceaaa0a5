"""Packages, bindings and sharing: by HTTP against the real stores; what runs says what it got."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from node.house import ECHO, House, open_house
from node.rest import T0, Server, open_server

from acs_node.errors import ApiError
from acs_node.resolution import resolve_action
from acs_node.routes import Route, action_behind

NAMESPACES = "/api/v1/namespaces"
PACKAGES = f"{NAMESPACES}/_/packages"
ACTIONS = f"{NAMESPACES}/_/actions"
EXEC = {"kind": "python:3", "code": "def main(args): return args"}
NO_PACKAGE = "The requested resource 'guest/absent' does not exist."
ON_BINDING = "Operation not permitted on package binding."


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(tmp_path) as server:
        yield server


def pairs(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


async def put(server: Server, path: str, **body: Any) -> Any:
    response = await server.call("PUT", f"{NAMESPACES}/_/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def someone_else(server: Server) -> httpx.BasicAuth:
    """Make another namespace with a published package and one of its own; return its key."""
    auth = httpx.BasicAuth(*await server.entities.create_namespace("other"))
    for name, publish in (("open", True), ("closed", False)):
        body = {"publish": publish, "parameters": pairs(a="package", b="package")}
        await server.call("PUT", f"{NAMESPACES}/_/packages/{name}", json=body, auth=auth)
        body = {"exec": EXEC, "parameters": pairs(a="action")}
        await server.call("PUT", f"{NAMESPACES}/_/actions/{name}/act", json=body, auth=auth)
    return auth


# Packages.


async def test_a_package_is_created_read_listed_and_deleted(server: Server) -> None:
    created = await put(server, "packages/tools", parameters=pairs(a=1))
    assert created == {
        "namespace": "guest",
        "name": "tools",
        "version": "0.0.1",
        "publish": False,
        "updated": T0,
        "parameters": pairs(a=1),
        "annotations": [],
        "binding": {},
    }
    read = (await server.call("GET", f"{PACKAGES}/tools")).json()
    assert read == {**created, "actions": [], "feeds": []}
    (row,) = (await server.call("GET", PACKAGES)).json()
    assert row == {
        "namespace": "guest",
        "name": "tools",
        "version": "0.0.1",
        "publish": False,
        "updated": T0,
        "annotations": [],
        "binding": False,
    }
    assert (await server.call("GET", f"{PACKAGES}/?count=true")).json() == {"packages": 1}
    deleted = await server.call("DELETE", f"{PACKAGES}/tools")
    assert (deleted.status_code, deleted.json()) == (200, created)
    expected = (404, "The requested resource 'guest/tools' does not exist.")
    assert await server.error("GET", f"{PACKAGES}/tools") == expected
    assert (await server.error("DELETE", f"{PACKAGES}/tools"))[0] == 404
    assert (await server.call("GET", PACKAGES)).json() == []


async def test_an_update_replaces_what_it_names_and_keeps_the_rest(server: Server) -> None:
    await put(server, "packages/tools", parameters=pairs(a=1, b=2), annotations=pairs(x=1))
    assert (await server.error("PUT", f"{PACKAGES}/tools", json={}))[0] == 409
    changed = await put(server, "packages/tools?overwrite=true", parameters=pairs(c=3))
    assert (changed["parameters"], changed["annotations"]) == (pairs(c=3), pairs(x=1))
    assert (changed["version"], changed["publish"]) == ("0.0.2", False)
    changed = await put(
        server, "packages/tools?overwrite=true", annotations=[], publish=True, version="1.0.0"
    )
    assert (changed["parameters"], changed["annotations"]) == (pairs(c=3), [])
    assert (changed["version"], changed["publish"]) == ("1.0.0", True)


@pytest.mark.parametrize(
    ("name", "body", "status", "text"),
    [
        ("default", {}, 400, "Package name 'default' is reserved."),
        ("p", {"parameters": {}}, 400, "The request content was malformed:\nparameters malformed!"),
        ("p", {"annotations": pairs(a="x" * 1000)}, 413, "annotations larger than allowed: 1003"),
        ("p", {"binding": []}, 400, "malformed:\nbinding must have a namespace and a name"),
        ("p", {"binding": {"name": 1}}, 400, "malformed:\nbinding must have a namespace"),
        ("p", {"binding": {"name": "a/b"}}, 400, "The name of the entity contains illegal"),
        ("p", {"binding": {"name": "absent"}}, 400, "Binding references a package that does not"),
        ("p", {"binding": {"name": "p"}}, 422, "Package binding 'p' contains a circular reference"),
        ("p", {"binding": {"name": "act"}}, 409, "Cannot bind to a resource that is not a package"),
        ("p", {"binding": {"name": "bound"}}, 400, "Cannot bind to another package binding."),
        ("plain", {"binding": {"name": "free"}}, 409, "cannot be converted into a binding."),
        ("p", {"binding": {"namespace": "other", "name": "x"}}, 403, "not authorized to access"),
        ("act", {}, 409, "Resource by this name exists but is not in this collection."),
        ("a%21", {}, 400, "The name of the entity contains illegal characters."),
    ],
)
async def test_a_package_that_cannot_be_is_refused_with_the_reason(
    server: Server, name: str, body: Any, status: int, text: str
) -> None:
    await put(server, "packages/plain")
    await put(server, "packages/free")
    await put(server, "packages/bound", binding={"name": "plain"})
    await put(server, "actions/act", exec=EXEC)
    told, error = await server.error("PUT", f"{PACKAGES}/{name}?overwrite=true", json=body)
    assert (told, text in error) == (status, True), error
    assert await server.entities.count(type(await _package(server, "plain")), "guest") == 3


async def _package(server: Server, name: str) -> Any:
    return await server.entities.own_package("guest", name)


async def test_other_methods_are_not_allowed(server: Server) -> None:
    response = await server.call("POST", f"{PACKAGES}/p", json={})
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, PUT")


async def test_a_package_with_actions_goes_only_by_force(server: Server) -> None:
    await put(server, "packages/p")
    await put(server, "packages/pp")
    await put(server, "actions/p/one", exec=EXEC)
    await put(server, "actions/pp/three", exec=EXEC)
    text = "Package not empty (contains 1 entity). Set force param or delete package contents."
    assert await server.error("DELETE", f"{PACKAGES}/p") == (409, text)
    await put(server, "actions/p/two", exec=EXEC)
    assert "contains 2 entities" in (await server.error("DELETE", f"{PACKAGES}/p"))[1]
    assert (await server.call("DELETE", f"{PACKAGES}/p?force=true")).status_code == 200
    (left,) = (await server.call("GET", ACTIONS)).json()
    assert (left["namespace"], left["name"]) == ("guest/pp", "three")


async def test_actions_and_feeds_of_a_package_are_told_apart(server: Server) -> None:
    await put(server, "packages/p")
    await put(server, "packages/P")
    await put(server, "actions/p/act", exec=EXEC)
    await put(server, "actions/p/feed", exec=EXEC, annotations=pairs(feed=True))
    await put(server, "actions/P/other", exec=EXEC)
    read = (await server.call("GET", f"{PACKAGES}/p")).json()
    assert [each["name"] for each in read["actions"]] == ["act"]
    assert set(read["actions"][0]) == {"name", "version", "annotations"}
    assert [each["name"] for each in read["feeds"]] == ["feed"]
    listed = (await server.call("GET", f"{ACTIONS}/p/")).json()
    assert sorted(each["name"] for each in listed) == ["act", "feed"]
    assert (await server.call("GET", f"{ACTIONS}/p/?count=true&skip=1")).json() == {"actions": 1}
    assert await server.error("GET", f"{ACTIONS}/absent/") == (404, NO_PACKAGE)


async def test_an_action_needs_its_package(server: Server) -> None:
    for method in ("PUT", "GET", "DELETE"):
        path = f"{ACTIONS}/absent/act"
        assert await server.error(method, path, json={"exec": EXEC}) == (404, NO_PACKAGE)


# Bindings.


async def test_parameters_are_merged_package_binding_action(server: Server) -> None:
    await put(server, "packages/p", parameters=pairs(a="package", b="package", c="package"))
    await put(server, "actions/p/act", exec=EXEC, parameters=pairs(c="action"))
    bound = await put(server, "packages/b", binding={"name": "p"}, parameters=pairs(b="bind"))
    target = {"namespace": "guest", "name": "p"}
    assert bound["binding"] == target
    assert bound["annotations"] == pairs(binding=target)
    through = (await server.call("GET", f"{ACTIONS}/b/act?code=false")).json()
    assert through["parameters"] == pairs(a="package", b="bind", c="action")
    assert (through["namespace"], through["binding"]) == ("guest/p", "guest/b")
    direct = (await server.call("GET", f"{ACTIONS}/p/act?code=false")).json()
    assert direct["parameters"] == pairs(a="package", b="package", c="action")
    assert "binding" not in direct
    shown = (await server.call("GET", f"{PACKAGES}/b")).json()
    assert shown["parameters"] == pairs(a="package", b="bind", c="package")
    assert [each["name"] for each in shown["actions"]] == ["act"]
    assert (shown["name"], shown["binding"]) == ("b", target)
    (listed,) = (await server.call("GET", f"{ACTIONS}/b/")).json()
    assert listed["namespace"] == "guest/p"
    rows = {row["name"]: row for row in (await server.call("GET", PACKAGES)).json()}
    assert rows["b"]["binding"] == target
    await put(server, "packages/b?overwrite=true", annotations=pairs(x=1))
    assert (await _binding_notes(server)) == pairs(x=1, binding=target)
    await put(server, "packages/b?overwrite=true", binding={"name": "p"})
    assert (await _binding_notes(server)) == pairs(x=1, binding=target)


async def _binding_notes(server: Server) -> Any:
    return (await server.call("GET", f"{PACKAGES}/b")).json()["annotations"]


async def test_nothing_is_changed_through_a_binding(server: Server) -> None:
    await put(server, "packages/p")
    await put(server, "actions/p/act", exec=EXEC)
    await put(server, "packages/b", binding={"namespace": "_", "name": "p"})
    body = {"exec": EXEC}
    for path, query in (("act", "?overwrite=true"), ("new", "")):
        assert await server.error("PUT", f"{ACTIONS}/b/{path}{query}", json=body) == (
            400,
            ON_BINDING,
        )
    assert await server.error("DELETE", f"{ACTIONS}/b/act") == (400, ON_BINDING)
    assert (await server.call("DELETE", f"{PACKAGES}/b")).status_code == 200
    assert (await server.call("GET", f"{ACTIONS}/p/act")).status_code == 200


# Sharing.


async def test_a_published_package_is_everybodys_to_read(server: Server) -> None:
    await someone_else(server)
    other = f"{NAMESPACES}/other"
    (row,) = (await server.call("GET", f"{other}/packages")).json()
    assert row["name"] == "open"
    assert (await server.call("GET", f"{other}/packages?count=true")).json() == {"packages": 1}
    assert (await server.call("GET", f"{other}/packages?skip=1")).json() == []
    assert (await server.call("GET", f"{other}/packages/open")).json()["namespace"] == "other"
    assert len((await server.call("GET", f"{other}/actions/open/")).json()) == 1
    read = (await server.call("GET", f"{other}/actions/open/act")).json()
    assert read["parameters"] == pairs(a="action", b="package")
    await put(server, "packages/b", binding={"namespace": "other", "name": "open"})
    read = (await server.call("GET", f"{ACTIONS}/b/act")).json()
    assert read["namespace"] == "other/open"


@pytest.mark.parametrize("name", ["closed", "absent"])
async def test_of_another_foreign_package_nobody_learns_whether_it_exists(
    server: Server, name: str
) -> None:
    await someone_else(server)
    for path in (f"packages/{name}", f"actions/{name}/", f"actions/{name}/act"):
        expected = (
            403,
            f"The supplied authentication is not authorized to access 'other/{name}'.",
        )
        assert await server.error("GET", f"{NAMESPACES}/other/{path}") == expected


async def test_what_is_foreign_is_not_changed(server: Server) -> None:
    await someone_else(server)
    other = f"{NAMESPACES}/other"
    for path in ("packages/open", "actions/open/act"):
        for method in ("PUT", "DELETE"):
            status, _ = await server.error(method, f"{other}/{path}?overwrite=true", json={})
            assert status == 403
    for path in ("actions", "actions/act"):
        assert (await server.error("GET", f"{other}/{path}"))[0] == 403


async def test_a_name_of_another_kind_is_a_secret_of_its_owner(server: Server) -> None:
    auth = await someone_else(server)
    body = {"exec": EXEC}
    await server.call("PUT", f"{NAMESPACES}/_/actions/act", json=body, auth=auth)
    assert (await server.error("GET", f"{NAMESPACES}/other/packages/act"))[0] == 403
    await put(server, "actions/act", exec=EXEC)
    assert (await server.error("GET", f"{PACKAGES}/act"))[0] == 409


# What runs.


async def package(house: House, name: str, namespace: str = "guest", **body: Any) -> None:
    await house.entities.put_package(namespace, name, body, overwrite=True)


async def test_an_invocation_gets_what_the_package_and_the_binding_say() -> None:
    async with open_house() as house:
        await package(house, "p", parameters=pairs(a="package", b="package", c="package"))
        await package(house, "b", binding={"name": "p"}, parameters=pairs(b="bind"))
        await house.put("p/act", ECHO, parameters=pairs(c="action"))
        merged = {"a": "package", "b": "bind", "c": "action"}
        answer = await house.invoke("b/act", result=False)
        assert answer.body["response"]["result"] == merged
        notes = {note["key"]: note["value"] for note in answer.body["annotations"]}
        assert (notes["path"], notes["binding"]) == ("guest/p/act", "guest/b")
        assert (await house.invoke("b/act", {"c": "request"})).body == {**merged, "c": "request"}
        plain = await house.invoke("p/act", result=False)
        assert plain.body["response"]["result"] == {**merged, "b": "package"}
        assert "binding" not in {note["key"] for note in plain.body["annotations"]}
        await package(house, "p", parameters=pairs(a="new"))
        assert (await house.invoke("b/act")).body == {"a": "new", "b": "bind", "c": "action"}
        await package(house, "b", parameters=[])
        assert (await house.invoke("b/act")).body == {"a": "new", "c": "action"}


async def test_what_a_package_puts_into_the_environment_is_its_own_containers() -> None:
    code = "import os\ndef main(args):\n    return {'e': os.environ.get('E')}\n"

    def init(value: str) -> list[dict[str, Any]]:
        return [{"key": "E", "value": value, "init": True}]

    async with open_house() as house:
        await package(house, "p", parameters=init("package"))
        await package(house, "b", binding={"name": "p"}, parameters=init("bind"))
        await house.put("p/act", code)
        assert (await house.invoke("p/act")).body == {"e": "package"}
        assert (await house.invoke("b/act")).body == {"e": "bind"}
        await package(house, "p", parameters=init("new"))
        assert (await house.invoke("p/act")).body == {"e": "new"}
        await package(house, "b", parameters=[])
        assert (await house.invoke("b/act")).body == {"e": "new"}


async def test_a_published_action_runs_for_everybody_until_it_is_private_again() -> None:
    async with open_house() as house:
        await house.entities.create_namespace("other")
        await package(house, "open", "other", publish=True)
        body = {"exec": {"kind": "python:3", "code": ECHO}, "parameters": pairs(a=1)}
        await house.entities.put_action("other", "open/act", body, overwrite=True)
        answer = await house.invoke("open/act", namespace="other", result=False)
        assert answer.body["namespace"] == "guest"
        assert answer.body["response"]["result"] == {"a": 1}
        await package(house, "open", "other", publish=False)
        answer = await house.invoke("open/act", namespace="other")
        assert (answer.status, "'other/open'" in answer.body) == (403, True)


async def test_the_action_behind_a_queue_is_found_by_its_name_alone(server: Server) -> None:
    await put(server, "packages/tools", parameters=[{"key": "KEY", "value": "p", "init": True}])
    await put(server, "packages/mine", binding={"namespace": "_", "name": "tools"})
    await put(server, "actions/tools/act", exec=EXEC, parameters=pairs(a=1))
    identity = server.entities.authenticate(*(await server.entities.create_namespace("x")))
    assert identity is not None
    for path in ("tools/act", "mine/act"):
        resolved = await resolve_action(server.entities, "guest", "guest", path)
        queue = Route(resolved, identity).spec.queue
        found = await action_behind(server.entities, queue)
        assert found.document() == resolved.action.document()
        assert [p.key for p in found.parameters] == ["KEY", "a"]
    await put(server, "packages/tools?overwrite=true", parameters=pairs(b=2))
    with pytest.raises(ApiError, match=r"it has revision \d+ now"):
        await action_behind(server.entities, queue)
    with pytest.raises(ApiError, match="does not exist"):
        await action_behind(server.entities, "guest/guest/absent@1")
