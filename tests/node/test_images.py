"""Runtime images, built and started on a real Docker Engine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from node.runtime_cases import Container
from requirements import missing

from acs_node import image_recipes, images
from acs_node.docker_client import connect
from acs_node.images import build_images, image_reference, list_images
from acs_node.sandboxes import EngineUnavailable, SandboxError, SandboxSpec
from acs_node.sandboxes.docker import DockerEngine

PYTHON = ("python:3",)
UNREACHABLE = "127.0.0.1:1/acs/none:1"
DEBIAN_PYTHON = "/usr/bin/python3"

USES_THE_LIBRARY = """
import importlib, os, pkgutil, ssl, sys, zoneinfo
def main(args):
    folder = [path for path in sys.path if path.endswith("lib-dynload")][0]
    modules = [module.name for module in pkgutil.iter_modules([folder])]
    for name in modules:
        importlib.import_module(name)
    import asyncio, ctypes, sqlite3
    return {
        "version": list(sys.version_info[:2]),
        "modules": len(modules),
        "compiled": os.path.exists(asyncio.__cached__),
        "certificates": len(ssl.create_default_context().get_ca_certs()),
        "zone": str(zoneinfo.ZoneInfo("Asia/Seoul")),
        "user": __import__("getpass").getuser(),
    }
"""


@pytest.fixture
def reference(docker_client: DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The image of python:3 under a name that only this test uses."""
    monkeypatch.setitem(images.REPOSITORIES, "python:3", f"acs-test/images-{os.getpid()}")
    reference = image_reference("python:3")
    yield reference
    for image in docker_client.api.images(reference):
        docker_client.api.remove_image(image["Id"], force=True)


async def result_in_container(client: DockerClient, folder: Path, code: str) -> object:
    """Start a container from the image of python:3 and run ``code`` in it."""
    engine = DockerEngine(folder, instance=f"images-{os.getpid()}", client=client, network="none")
    try:
        sandbox = await engine.start(SandboxSpec("c", "python:3", 256))
        container = Container(sandbox)
        assert await container.init(code) == (200, {"ok": True})
        status, answer = await container.run()
        container.http.close()
        assert status == 200, answer
        return answer
    finally:
        await engine.close()


@pytest.mark.parametrize("interpreter", [None, DEBIAN_PYTHON])
async def test_a_host_image_holds_a_whole_python(
    docker_client: DockerClient, reference: str, tmp_path: Path, interpreter: str | None
) -> None:
    if interpreter and not os.path.exists(interpreter):
        missing("docker", f"{interpreter} does not exist")
    lines: list[str] = []

    [image] = build_images(
        docker_client, lines.append, kinds=PYTHON, mode="host", interpreter=interpreter
    )

    assert (image.reference, image.source, image.built) == (reference, "host", True)
    assert 20e6 < image.size_bytes < 150e6
    assert [line.split(":")[0] for line in lines] == [reference.split(":")[0]] * 2
    facts = await result_in_container(docker_client, tmp_path, USES_THE_LIBRARY)
    assert isinstance(facts, dict)
    if interpreter is None:
        assert facts["version"] == list(sys.version_info[:2])
    assert facts["modules"] > 20
    assert facts["compiled"], "a start would compile the library each time"
    assert facts["zone"] == "Asia/Seoul"
    assert facts["user"] == "acs"
    if Path("/etc/ssl/certs/ca-certificates.crt").exists():
        assert facts["certificates"] > 0


def test_an_unchanged_image_is_not_built_again(docker_client: DockerClient, reference: str) -> None:
    [first] = build_images(docker_client, kinds=PYTHON, mode="host")
    image_id = docker_client.api.inspect_image(reference)["Id"]

    # auto keeps the way in which the present image was made
    for mode in ("host", "auto"):
        [again] = build_images(docker_client, kinds=PYTHON, mode=mode, base_image=UNREACHABLE)
        assert (first.built, again.built) == (True, False)
        assert docker_client.api.inspect_image(reference)["Id"] == image_id


def test_a_changed_image_replaces_the_old_one(
    docker_client: DockerClient, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_images(docker_client, kinds=PYTHON, mode="host")
    old_id = docker_client.api.inspect_image(reference)["Id"]
    monkeypatch.setattr(image_recipes, "_RECIPE", -1)

    [image] = build_images(docker_client, kinds=PYTHON, mode="host")

    assert image.built
    assert docker_client.api.inspect_image(reference)["Id"] != old_id
    assert old_id not in [entry["Id"] for entry in docker_client.api.images()]


def test_the_layer_depends_on_contents_alone(docker_client: DockerClient, reference: str) -> None:
    layers = []
    for _ in range(2):
        build_images(docker_client, kinds=PYTHON, mode="host")
        layers.append(docker_client.api.inspect_image(reference)["RootFS"]["Layers"])
        docker_client.api.remove_image(reference)
    assert layers[0] == layers[1]


@pytest.mark.usefixtures("docker_images")
async def test_the_dockerfile_makes_an_image_that_starts(
    docker_client: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image_reference("python:3")  # a base image that the engine has without a registry
    monkeypatch.setitem(images.REPOSITORIES, "python:3", f"acs-test/dockerfile-{os.getpid()}")
    lines: list[str] = []
    try:
        [image] = build_images(
            docker_client, lines.append, kinds=PYTHON, mode="auto", base_image=base
        )
        assert (image.source, image.built) == ("dockerfile", True)
        assert f"the engine has {base}" in lines[0]
        config = docker_client.api.inspect_image(image.reference)["Config"]
        of_base = docker_client.api.inspect_image(base)["Config"]
        # both ways must give a container the same start
        for field in ("Entrypoint", "User", "WorkingDir"):
            assert config[field] == of_base[field]
        [again] = build_images(
            docker_client, lines.append, kinds=PYTHON, mode="auto", base_image=base
        )
        assert not again.built
        code = "def main(args): return {'ok': True}"
        assert await result_in_container(docker_client, tmp_path, code) == {"ok": True}
    finally:
        docker_client.api.remove_image(image_reference("python:3"), force=True)


def test_without_a_registry_auto_uses_this_machines_python(
    docker_client: DockerClient, reference: str
) -> None:
    lines: list[str] = []
    [image] = build_images(docker_client, lines.append, kinds=PYTHON, base_image=UNREACHABLE)
    assert image.source == "host"
    assert lines[0].startswith(f"no registry answers for {UNREACHABLE} (")
    assert lines[0].endswith("): using this machine's python")


def test_a_dockerfile_that_cannot_be_built_says_why(
    docker_client: DockerClient, reference: str
) -> None:
    with pytest.raises(SandboxError, match=r"127\.0\.0\.1:1"):
        build_images(docker_client, kinds=PYTHON, mode="dockerfile", base_image=UNREACHABLE)
    assert not docker_client.api.images(reference)


def test_an_engine_of_another_architecture_gets_no_host_image(
    docker_client: DockerClient, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(SandboxError, match="pdp11"):
        build_images(docker_client, kinds=PYTHON, mode="host")


def test_an_interpreter_that_does_not_run_says_so(
    docker_client: DockerClient, reference: str
) -> None:
    for interpreter, text in (("/nonexistent/python", "cannot run"), ("/bin/false", "exited 1")):
        with pytest.raises(SandboxError, match=text) as caught:
            build_images(docker_client, kinds=PYTHON, mode="host", interpreter=interpreter)
        assert caught.value.final


@pytest.mark.usefixtures("docker_images")
def test_images_are_listed(docker_client: DockerClient) -> None:
    listed = {image.reference: image for image in list_images(docker_client)}
    image = listed[image_reference("python:3")]
    assert (image.kind, image.source) == ("python:3", "host")
    assert image.size_bytes > 20e6


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="mode is 'fast'"):
        build_images(None, mode="fast")
    with pytest.raises(SandboxError, match="kind 'cobol:1' has no image") as caught:
        image_reference("cobol:1")
    assert caught.value.final


def test_a_dead_socket_is_an_unavailable_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match=f"{tmp_path}/none.sock"):
        connect()


@pytest.mark.parametrize("kind", image_recipes.RUNTIMES)
def test_both_recipes_name_the_same_start(kind: str) -> None:
    # The Dockerfile has its own copy of the entry point; without an engine this is all to compare.
    runtime = image_recipes.RUNTIMES[kind]
    text = (runtime.proxy.parent / "Dockerfile").read_text()
    assert f"ENTRYPOINT {json.dumps(runtime.entry_point)}" in text
    assert f"USER {image_recipes.USER}" in text
    assert f"ARG BASE={runtime.base_image}" in text


def test_kinds_are_named_by_family_too() -> None:
    assert images.named_kinds([]) == []
    assert images.named_kinds(["nodejs", "python:3"]) == ["nodejs:20", "python:3"]
    with pytest.raises(SandboxError, match="kind 'cobol' has no image"):
        images.named_kinds(["cobol"])


def test_a_machine_without_node_makes_what_it_can(
    docker_client: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(images, "REPOSITORIES", {"nodejs:20": f"acs-test/none-{os.getpid()}"})
    lines: list[str] = []
    assert build_images(docker_client, lines.append, mode="host") == []
    assert "left out: there is no node in PATH" in lines[0]
    with pytest.raises(SandboxError, match="no node in PATH"):
        build_images(docker_client, kinds=["nodejs:20"], mode="host")
