"""Images that are not on the machine are pulled here, beside the starts and removals.

Neither the engine nor its client ends a pull from a registry that has fallen silent, and anybody
may name such a registry.  So pulls have threads of their own, and every one ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

from docker import APIClient
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env
from requests import PreparedRequest, ReadTimeout, Response
from urllib3.exceptions import HTTPError, ReadTimeoutError

from acs_node.sandboxes import EngineUnavailable, ImageUnavailable, SandboxError

PULL_S = 300.0
"""How long an image may take to come, its wait for a place among the pulls included."""
SILENT_S = 60.0
"""How long the engine may be silent meanwhile: it reports progress several times a second."""
PULLS_MAX = 4
"""Pulls at once."""


def moves(image: str) -> bool:
    """Return whether the name may mean another image tomorrow: its tag is ``latest`` or none."""
    return "@" not in image and _tag(image) in ("", "latest")


def cannot_be_had(image: str) -> ImageUnavailable:
    """Return the error of an image that is nowhere, in OpenWhisk's words.

    The engine's reason may name the platform's registry and is for its operator.
    """
    return ImageUnavailable(f"Failed to pull container image '{image}'.")


class Pulls:
    """Pulls of images, ``PULLS_MAX`` at once; those who want the same image wait for one pull."""

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting: deque[tuple[str, float]] = deque()
        self._told: dict[str, asyncio.Future[None]] = {}  # by image

    async def pull(self, image: str) -> None:
        """Pull an image.

        Raises: ImageUnavailable; SandboxError when it does not come in time; EngineUnavailable.
        """
        told = self._told.get(image)
        if told is None:
            loop = asyncio.get_running_loop()
            told = self._told[image] = loop.create_future()
            late = loop.call_later(PULL_S, self._tell, image, told, _late(image))
            told.add_done_callback(lambda _: late.cancel())
            self._waiting.append((image, time.monotonic() + PULL_S))
            self._begin()
        await asyncio.shield(told)

    def close(self) -> None:
        """Let nobody wait any longer."""
        for image, told in list(self._told.items()):
            self._tell(image, told, EngineUnavailable(f"pull image {image}: the engine is closed"))

    def _begin(self) -> None:
        """Start what waits for a place and was not given up."""
        while self._waiting and self._under_way < PULLS_MAX:
            image, deadline = self._waiting.popleft()
            told = self._told.get(image)
            if told is None or time.monotonic() >= deadline:
                continue
            self._under_way += 1
            work = partial(self._work, asyncio.get_running_loop(), image, deadline, told)
            # A daemon: one that hangs does not keep the program from ending.
            Thread(target=work, name="acs-pull", daemon=True).start()

    def _work(
        self,
        loop: asyncio.AbstractEventLoop,
        image: str,
        deadline: float,
        told: asyncio.Future[None],
    ) -> None:
        error = None
        try:
            _pull(image, deadline)
        except Exception as failure:
            error = failure
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._ended, image, told, error)

    def _ended(self, image: str, told: asyncio.Future[None], error: Exception | None) -> None:
        self._under_way -= 1
        self._tell(image, told, error)
        self._begin()

    def _tell(self, image: str, told: asyncio.Future[None], error: Exception | None) -> None:
        if told.done():
            return
        del self._told[image]
        if error is None:
            told.set_result(None)
        else:
            told.set_exception(error)


class _Client(APIClient):  # type: ignore[misc]  # the package has no types
    """A client that gives up a silent engine also where the package waits for ever: in pulls."""

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        response: Response = super().send(request, **(options | {"timeout": SILENT_S}))
        return response


def _pull(image: str, deadline: float) -> None:
    name = image if _tag(image) or "@" in image else f"{image}:latest"
    try:
        client = _Client(**kwargs_from_env())
        with client:
            for _ in client.pull(name, stream=True):
                if time.monotonic() > deadline:
                    raise _late(image)
    except APIError as error:
        raise cannot_be_had(image) from error
    except (ReadTimeout, ReadTimeoutError) as error:
        text = f"image {image} did not come: no progress for {SILENT_S:g} s"
        raise SandboxError(text) from error
    except (DockerException, HTTPError, OSError) as error:  # those of requests are OSErrors
        raise EngineUnavailable(f"pull image {image}: {error}") from error


def _late(image: str) -> SandboxError:
    return SandboxError(f"image {image} did not come in {PULL_S:g} s")


def _tag(image: str) -> str:
    return image.rpartition("/")[2].partition("@")[0].partition(":")[2]
