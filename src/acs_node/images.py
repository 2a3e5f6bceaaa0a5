"""The images that containers start from: which kind uses which, how they are made and listed.

An image is built by its Dockerfile where the engine reaches a registry.  Where it does not, it is
made from this machine's own python or node: interpreter, standard library, the shared libraries
they need, time zones, certificates.  Such an image has no shell and no package manager.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from docker import DockerClient
from docker.errors import APIError, NotFound

from acs_node.docker_client import engine_calls, refused
from acs_node.image_recipes import RUNTIMES, DockerfileRecipe, HostRecipe
from acs_node.sandboxes import SandboxError

REPOSITORIES = {"python:3": "acs/python3", "nodejs:20": "acs/nodejs20"}
"""Runtime kind to the repository of its image."""

REGISTRY_PROBE_S = 10.0
"""How long a registry may take to describe the base image before it counts as out of reach."""
BUILD_S = 600.0
"""The longest silence of an engine that pulls, builds or imports."""

KIND_LABEL = "acs.kind"
CONTENT_LABEL = "acs.content"
SOURCE_LABEL = "acs.source"


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """An image of a kind; ``source`` is ``dockerfile`` or ``host``, ``built`` says: just now."""

    kind: str
    reference: str
    size_bytes: int
    source: str
    built: bool = False


def image_reference(kind: str) -> str:
    """Return the image of a runtime kind with the tag of this version.

    Raises: SandboxError (final) for a kind without an image.
    """
    repository = REPOSITORIES.get(kind)
    if repository is None:
        known = ", ".join(sorted(REPOSITORIES))
        raise SandboxError(f"kind '{kind}' has no image; kinds with one: {known}", final=True)
    return f"{repository}:{_version()}"


def named_kinds(names: Iterable[str]) -> list[str]:
    """Return the kinds that names mean, each a kind or a family.

    Raises: SandboxError (final) for a name that means none.
    """
    kinds = []
    for name in names:
        found = [kind for kind in REPOSITORIES if name in (kind, kind.partition(":")[0])]
        if not found:
            image_reference(name)
        kinds += found
    return kinds


def build_images(
    client: DockerClient,
    progress: Callable[[str], None] = print,
    *,
    kinds: Sequence[str] = (),
    mode: str = "auto",
    base_image: str | None = None,
    interpreter: str | None = None,
) -> list[RuntimeImage]:
    """Build the image of every kind that is not there yet with the same content.

    ``kinds``: which; if none is named all, without those whose program this machine lacks.

    ``mode`` is ``dockerfile``, ``host`` or ``auto``: as an image of this version was made before,
    else by the Dockerfile if the engine has ``base_image`` or gets an answer about it from the
    registry within 10 s, else host.  ``interpreter`` is the program whose files a host image gets
    (default: the python that runs this, outside its virtual environment; the node in PATH).
    ``base_image`` is what the Dockerfile builds on (default: the runtime's).
    ``progress`` takes one line at a time.  Not to be called twice at once with the same client.

    Raises: SandboxError with the end of the build's output; EngineUnavailable; ValueError.
    Cost: host some seconds, less than one when nothing changed; dockerfile what the registry takes.
    """
    if mode not in ("auto", "dockerfile", "host"):
        raise ValueError(f"mode is '{mode}', must be auto, dockerfile or host")
    timeout_s, client.api.timeout = client.api.timeout, BUILD_S
    try:
        with engine_calls("build images"):
            return [
                image
                for kind in kinds or REPOSITORIES
                if (image := _build(client, kind, progress, mode, base_image, interpreter, kinds))
            ]
    except APIError as error:
        raise refused("build images", error) from error
    finally:
        client.api.timeout = timeout_s


def list_images(client: DockerClient) -> list[RuntimeImage]:
    """Return the runtime images of this engine, all versions, by reference.

    Raises: SandboxError, EngineUnavailable.
    """
    with engine_calls("list images"):
        try:
            found = client.api.images(filters={"label": [KIND_LABEL]})
        except APIError as error:
            raise refused("list images", error) from error
    images = [
        RuntimeImage(
            kind=image["Labels"][KIND_LABEL],
            reference=reference,
            size_bytes=image["Size"],
            source=image["Labels"].get(SOURCE_LABEL, ""),
        )
        for image in found
        for reference in image["RepoTags"] or ()
        if reference != "<none>:<none>"
    ]
    return sorted(images, key=lambda image: image.reference)


@cache
def _version() -> str:
    """Return the version of the distribution as a tag; ``source`` when it is not installed."""
    try:
        return metadata.version("acs-scheduler").replace("+", "-")
    except metadata.PackageNotFoundError:
        return "source"


def _build(
    client: DockerClient,
    kind: str,
    progress: Callable[[str], None],
    mode: str,
    base_image: str | None,
    interpreter: str | None,
    wanted: Sequence[str],
) -> RuntimeImage | None:
    """Build the image of one kind unless the engine has it with the same content.

    None: it cannot be made here, and nobody asked for this one.
    """
    reference = image_reference(kind)
    runtime = RUNTIMES[kind]
    base_image = base_image or runtime.base_image
    try:
        before = client.api.inspect_image(reference)
        present = before["Config"]["Labels"] or {}
    except NotFound:
        before, present = None, {}
    if mode == "auto":
        mode = present.get(SOURCE_LABEL) or _choose_mode(
            client, base_image, runtime.family, progress
        )
    recipe: HostRecipe | DockerfileRecipe
    if mode == "dockerfile":
        recipe = DockerfileRecipe(runtime, base_image)
    else:
        try:
            interpreter = interpreter or runtime.program()
        except SandboxError as error:
            if kind in wanted:
                raise
            progress(f"{reference}: left out: {error}")
            return None
        recipe = HostRecipe(client, runtime, interpreter)
    content = recipe.content_hash()
    built = present.get(CONTENT_LABEL) != content
    started_s = time.monotonic()
    if built:
        progress(f"{reference}: building from {recipe.description}")
        labels = {KIND_LABEL: kind, SOURCE_LABEL: mode, CONTENT_LABEL: content}
        recipe.build(client, reference, labels)
        if before is not None:
            _remove_unused(client, before["Id"])
    size_bytes = client.api.inspect_image(reference)["Size"]
    outcome = f"built in {time.monotonic() - started_s:.1f} s" if built else f"up to date ({mode})"
    progress(f"{reference}: {outcome}, {size_bytes / 1e6:.0f} MB")
    return RuntimeImage(kind, reference, size_bytes, mode, built)


def _remove_unused(client: DockerClient, image_id: str) -> None:
    """Remove an image that has lost its tag, unless it has another one or a container uses it."""
    try:
        client.api.remove_image(image_id)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise


def _choose_mode(
    client: DockerClient, base_image: str, family: str, progress: Callable[[str], None]
) -> str:
    """Say how to build, and why: only the engine knows which registries it can reach."""
    try:
        client.api.inspect_image(base_image)
    except NotFound:
        pass
    else:
        progress(f"the engine has {base_image}: using the Dockerfile")
        return "dockerfile"
    timeout_s, client.api.timeout = client.api.timeout, REGISTRY_PROBE_S
    try:
        client.api.inspect_distribution(base_image)
    except OSError as error:  # APIError and the time-outs of requests alike
        reason = error.explanation if isinstance(error, APIError) else error
        progress(f"no registry answers for {base_image} ({reason}): using this machine's {family}")
        return "host"
    finally:
        client.api.timeout = timeout_s
    progress(f"the registry has {base_image}: using the Dockerfile")
    return "dockerfile"
