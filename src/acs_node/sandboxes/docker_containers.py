"""The containers of one data folder on a Docker Engine: every call that the engine is asked.

All of it blocks, so it is for threads.  What a container may do is written in ``_host_config``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import Any

from docker import DockerClient
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit

from acs_node.docker_client import connect, engine_calls, refused
from acs_node.image_recipes import SHARED_DIRECTORY
from acs_node.sandboxes import SandboxError, SandboxSpec, stock

ENDING_S = 2.0
"""How long ``ending`` waits for a container to have ended."""
PIDS_MAX = 1024
FILES_MAX = 1024
OUTPUT_SIZE = "64k"
"""What the engine keeps of what a container prints before the proxy has opened its FIFOs."""
METADATA_ADDRESS = "169.254.169.254"
"""Where clouds hand the credentials of the machine to whoever asks.

A container gets it as an address of its own, so that what asks there asks itself; the /16 that
comes with it keeps all other link-local addresses on the container's own wire.  That needs no
packet filter, and so no more rights than the engine's socket gives."""

INSTANCE_LABEL = "acs.instance"
CONTAINER_LABEL = "acs.container"

_TRAFFIC = "com.docker.network.bridge.enable_icc"
_log = logging.getLogger(__name__)


class Containers:
    """What is asked of the engine about the containers that are labelled with ``instance``.

    For the parameters see ``DockerEngine``.  Raises, everywhere: SandboxError for what the engine
    refuses, EngineUnavailable when it does not answer.
    """

    def __init__(
        self,
        instance: str,
        client: DockerClient | None,
        network: str,
        user: str,
        call_s: float,
        host_memory_mb: int,
    ) -> None:
        self._instance = instance
        self._client = client
        self._owns_client = client is None
        self._network = network
        self._user = user
        self._call_s = call_s
        self._host_memory_mb = host_memory_mb
        self._preparing = Lock()
        self._prepared = False

    @property
    def connected(self) -> bool:
        """Whether anything may have been asked of the engine."""
        return self._client is not None

    def close(self) -> None:
        """Release the connections, unless the client was given."""
        if self._owns_client and self._client is not None:
            self._client.close()

    def prepare(self) -> DockerClient:
        """Return the client; the first call connects and sees to the network."""
        with self._preparing:
            if self._client is None:
                self._client = connect(self._call_s)
            if not self._prepared:
                with engine_calls("prepare the network"):
                    self._ensure_network(self._client)
                self._prepared = True
            return self._client

    def _ensure_network(self, client: DockerClient) -> None:
        if self._network == "none":
            return
        try:
            try:
                found = client.api.inspect_network(self._network)
                if found["Driver"] == "bridge" and found["Options"].get(_TRAFFIC) != "false":
                    _log.warning(
                        "network %s lets its containers reach each other; remove it, and it is "
                        "made without that, or make it with the option %s=false",
                        self._network,
                        _TRAFFIC,
                    )
            except NotFound:
                client.api.create_network(
                    self._network,
                    driver="bridge",
                    options={_TRAFFIC: "false"},
                    check_duplicate=True,
                )
        except APIError as error:
            if error.status_code != 409:  # another node was faster
                raise refused(f"create network {self._network}", error) from error

    def labels_of(self, image: str) -> dict[str, str] | None:
        """Return the labels of an image; None when the engine has no such image."""
        client = self.prepare()
        with engine_calls(f"look for image {image}"):
            try:
                return dict(client.api.inspect_image(image)["Config"]["Labels"] or {})
            except ImageNotFound:
                return None
            except APIError as error:
                raise refused(f"look for image {image}", error) from error

    def port_of(self, handle: str) -> int:
        """Return where on this machine the container's proxy is reached by TCP."""
        client = self.prepare()
        with engine_calls("inspect container"):
            try:
                return stock.port_of(client, handle)
            except APIError as error:
                raise refused("inspect container", error) from error

    def create_and_start(
        self, spec: SandboxSpec, image: str, directory: Path, output: stock.Output | None
    ) -> str:
        """Return the engine's id of a container that has begun to start from ``image``."""
        what = f"start container {spec.container}"
        client = self.prepare()
        config = self.configuration(client, spec, directory)
        if output is not None:
            published = stock.published(config["host_config"])
            # Its files are its user's.
            config |= {"user": None, "ports": [stock.PORT], "host_config": published}
        with engine_calls(what):
            try:
                created: dict[str, str] = client.api.create_container(image, **config)
                if output is not None:
                    output.attach(client, created["Id"])
                client.api.start(created["Id"])
            except ImageNotFound as error:
                raise SandboxError(
                    f"{what}: image {image} of kind '{spec.kind}' is missing; make it with "
                    "`acs images build`",
                    final=True,
                ) from error
            except APIError as error:
                self._prepared = False  # the network may be gone: look again next time
                raise refused(what, error) from error
        return created["Id"]

    def configuration(
        self, client: DockerClient, spec: SandboxSpec, directory: Path
    ) -> dict[str, Any]:
        """Return all that a container of our own image is created with, beside the image."""
        return {
            "name": f"acs_{spec.container}",
            "user": self._user,
            "environment": dict(spec.environment),
            "labels": {INSTANCE_LABEL: self._instance, CONTAINER_LABEL: spec.container},
            "host_config": self._host_config(client, spec, directory),
            "networking_config": self._networking_config(client, spec),
            "use_config_proxy": False,  # the environment is the spec's alone
        }

    def _host_config(
        self, client: DockerClient, spec: SandboxSpec, directory: Path
    ) -> dict[str, Any]:
        """Return the bounds of a container: all that stands between a function and the host."""
        memory = f"{spec.memory_mb}m"
        # Half the memory, for what lies in /tmp counts as the container's memory: a function that
        # fills /tmp gets ENOSPC, it is not killed.  exec: actions bring shared libraries.
        scratch = f"rw,nosuid,nodev,exec,mode=1777,size={max(1, spec.memory_mb // 2)}m"
        config: dict[str, Any] = client.api.create_host_config(
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],  # seccomp: the engine's default profile
            read_only=True,
            tmpfs={"/tmp": scratch},
            mounts=[Mount(SHARED_DIRECTORY, str(directory), type="bind")],
            mem_limit=memory,
            memswap_limit=memory,  # both: no swap
            cpu_shares=max(2, 1024 * spec.memory_mb // self._host_memory_mb),
            pids_limit=PIDS_MAX,
            ulimits=[
                Ulimit(name="nofile", soft=FILES_MAX, hard=FILES_MAX),
                Ulimit(name="core", soft=0, hard=0),
            ],
            network_mode=self.network_of(spec),
            # The proxy as process 1 would have to reap what functions leave behind.
            init=True,
            # Logs go through the FIFOs.  Not `none`: why a proxy does not start is said before.
            log_config=LogConfig(
                type="json-file", config={"max-size": OUTPUT_SIZE, "max-file": "1"}
            ),
        )
        return config

    def network_of(self, spec: SandboxSpec) -> str:
        """Return the network that a container gets."""
        return self._network if spec.network else "none"

    def _networking_config(self, client: DockerClient, spec: SandboxSpec) -> dict[str, Any] | None:
        network = self.network_of(spec)
        if network == "none":
            return None
        endpoint = client.api.create_endpoint_config(link_local_ips=[METADATA_ADDRESS])
        config: dict[str, Any] = client.api.create_networking_config({network: endpoint})
        return config

    def why_ended(self, handle: str) -> str | None:
        """Return None while the container runs, else its exit status and last output."""
        client = self.prepare()
        with engine_calls("inspect container"):
            try:
                state = client.api.inspect_container(handle)["State"]
                if state["Running"]:
                    return None
                output = client.api.logs(handle, tail=20).decode("utf-8", "replace").strip()
            except NotFound:
                return "removed by somebody else"
            except APIError as error:
                raise refused("inspect container", error) from error
        return f"exit status {state['ExitCode']}, output: {output or 'none'}"

    def wait_and_inspect(self, handle: str) -> dict[str, Any] | None:
        """Return the engine's State of a container, once it has ended or after 2 s."""
        client = self.prepare()
        with engine_calls("inspect container"):
            try:
                try:
                    client.api.wait(handle, timeout=ENDING_S)
                except APIError:
                    raise
                except OSError:
                    pass  # not ended: a read that timed out
                state: dict[str, Any] = client.api.inspect_container(handle)["State"]
            except NotFound:
                return None
            except APIError as error:
                raise refused("inspect container", error) from error
        return state

    def list(self, container: str | None = None) -> dict[str, str]:
        """Return this data folder's containers, or one of them: the engine's id to ours."""
        client = self.prepare()
        labels = [f"{INSTANCE_LABEL}={self._instance}"]
        if container is not None:
            labels.append(f"{CONTAINER_LABEL}={container}")
        with engine_calls("list containers"):
            try:
                found = client.api.containers(all=True, filters={"label": labels})
            except APIError as error:
                raise refused("list containers", error) from error
        return {entry["Id"]: entry["Labels"][CONTAINER_LABEL] for entry in found}

    def freeze(self, handle: str, verb: str) -> None:
        """``pause`` a container, or ``unpause`` it."""
        what = f"{verb} container {handle[:12]}"
        client = self.prepare()
        with engine_calls(what):
            try:
                getattr(client.api, verb)(handle)
            except APIError as error:
                raise refused(what, error) from error

    def remove(self, handle: str) -> None:
        """End and remove a container; one that is gone is fine."""
        what = f"remove container {handle[:12]}"
        client = self.prepare()
        with engine_calls(what):
            try:
                client.api.remove_container(handle, force=True, v=True)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:
                    raise refused(what, error) from error
                self._wait_removed(client, handle, what)

    def _wait_removed(self, client: DockerClient, handle: str, what: str) -> None:
        """Wait for a removal that somebody else has begun."""
        try:
            client.api.wait(handle, timeout=self._call_s, condition="removed")
        except NotFound:
            return
        except APIError as error:
            raise refused(what, error) from error
