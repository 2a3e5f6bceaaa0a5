"""``acs standalone``: controller, scheduler and invoker in one process, over local links.

Builds the house and tears it down: which sandbox engine, which stores, who is linked to whom,
and in which order things stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
import uvloop

from acs_core.containers import PoolConfig
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.limits import (
    CONTAINERS_MAX,
    PAUSE_GRACE_US,
    PUSH_PAUSE_GRACE_US,
    SHARD_MIN_MB,
)
from acs_core.prewarm import Prewarm
from acs_core.scheduler import SchedulerConfig
from acs_core.sharding_pool import PushPoolConfig

from . import clock, journal, wskprops
from .activations import ActivationStore
from .addresses import is_loopback
from .api import create_app
from .controller import Controller
from .data_folder import LOCK
from .database import Database, DatabaseError
from .entities import EntityStore, SystemLimits
from .firing import Firing
from .front import Front
from .houses import House, pull_house, push_house
from .manifest import Manifest
from .operators import Operator, OperatorFileError
from .pool_settings import PoolError, kinds_of, pool_config
from .retention import KEEP_DAYS, KEEP_MB, Retention
from .sandboxes import SandboxEngine, SandboxError
from .sandboxes.metered import MeteredEngine
from .status import Status, with_status
from .trace_file import TraceFile

log = logging.getLogger(__name__)

INVOKER = "invoker0"
RECORDS_BUFFERED_MAX = 50_000
"""Records held while the database is slow: some seconds of full load."""

STOP_S = 700.0
"""Longest graceful stop: the wait bound, an initialisation and a run at their limits, and some."""

CLIENTS_S = 5.0
"""After the last activation has ended: how long clients may take to read their answers."""

REMOVE_S = 30.0
"""After that: how long the engine may take to remove the containers; a later start tries again."""

RECORDS_S = 30.0
"""At the very end: how long the database may take to take the last records."""

RETAIN_S = 60.0
"""Between two deletions of old records."""

ACCEPTS_IN_A_TURN = 32
"""Connections that are accepted in one turn of the loop."""

RETRY_S = 1.0
"""After namespaces could not be read."""

SWEEP_S = 10.0
"""Between two looks for activations that nobody ended."""

SHADOW_RULES: dict[str, type[OpenWhiskRule] | type[RuntimeFitRule]] = {
    "fit": RuntimeFitRule,
    "openwhisk": OpenWhiskRule,
}


@dataclass(frozen=True, slots=True)
class StandaloneConfig:
    """``memory_mb`` for all containers, None: half of this machine's; ``namespace_containers``
    None: only memory bounds them.  ``port`` 0 takes a free one.  ``trace``: where to write the
    scheduler's trace.  ``pause_grace_s``: after how many idle seconds a container is paused, 0:
    never.  ``prewarm``: which sandboxes stand ready.  ``network``: of functions in Docker.
    ``keep_days`` and ``keep_mb``: how long, and in how much of the database, activation records are
    kept, 0: no bound.
    ``concurrency_max``: the most runs at once in one container that an action may ask for.
    ``manifest``: which runtimes there are, None: ours.
    ``shadow_rule``: one of SHADOW_RULES, asked at each decision and never obeyed; None: no one.
    ``operator_file`` has the operator's credential, None: there is none.
    ``database_url``: where the stores are, empty: in SQLite in the data folder; ``shared`` with
    other servers, which tell each other what they change.
    ``scheduler``: "pull" or "sharding", the baseline that pushes, with so many ``controllers`` and
    ``invokers``, which share the memory; it pauses containers after 10 s unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = 3233
    data: Path = Path("acs-data")
    sandbox: str = "auto"
    memory_mb: int | None = None
    namespace_containers: int | None = None
    trace: Path | None = None
    pause_grace_s: float = PAUSE_GRACE_US / 1e6
    prewarm: tuple[Prewarm, ...] = ()
    network: str = "acs"
    keep_days: float = KEEP_DAYS
    keep_mb: int = KEEP_MB
    concurrency_max: int = 1
    manifest: Manifest | None = None
    shadow_rule: str | None = None
    operator_file: Path | None = None
    database_url: str = field(default="", repr=False)
    scheduler: str = "pull"
    controllers: int = 1
    invokers: int = 1
    shared: bool = False


SWITCH_S = 0.05
"""How long a thread waits for the interpreter's lock before it insists.

The loop then stands still until that thread has had a processor, which on busy ones takes
milliseconds.  Ten times Python's own value: the loop pauses often enough for the database's thread.
"""


class StartError(Exception):
    """The server cannot start, or not end as it should; the text says why and what to do."""


def run(config: StandaloneConfig) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    ignore_pokes()
    try:
        _check_scheduler(config)
        pool = _pool_config(config)
        with data_folder(config.data):
            sys.setswitchinterval(SWITCH_S)
            uvloop.run(_serve(config, pool))
    except (StartError, DatabaseError, SandboxError) as error:
        print(f"acs standalone: {error}", file=sys.stderr)
        return 1
    return 0


def ignore_pokes() -> None:
    """Until the namespaces are read: who changes them pokes the server, which must not end it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


# --- the parts ---------------------------------------------------------------------------------


def _check_scheduler(config: StandaloneConfig) -> None:
    """Raises: StartError for an option that the chosen scheduler would not heed."""
    if config.scheduler == "sharding":
        unheeded = {
            "--containers": config.namespace_containers is not None,
            "--trace": config.trace is not None,
            "--shadow-rule": config.shadow_rule is not None,
        }
        why = "the scheduler that pushes has no caps and makes no decisions of that kind"
    else:
        unheeded = {"--controllers": config.controllers > 1, "--invokers": config.invokers > 1}
        why = "only --scheduler sharding plays several in one process"
    for option, given in unheeded.items():
        if given:
            raise StartError(f"{option} has no meaning here: {why}; leave it out")


def _pool_config(config: StandaloneConfig) -> PoolConfig:
    """Return how the containers are to be kept.  Raises: StartError for what has no meaning."""
    memory_mb = config.memory_mb or _half_of_memory_mb()
    memory_mb //= config.invokers
    if memory_mb < SHARD_MIN_MB:
        raise StartError(
            f"each of {config.invokers} invokers would have {memory_mb} MB; it needs at least "
            f"{SHARD_MIN_MB} MB: give them more with --memory, or take fewer"
        )
    try:
        return pool_config(
            INVOKER,
            memory_mb,
            pause_grace_s=config.pause_grace_s,
            prewarm=config.prewarm,
            manifest=config.manifest,
            limits=_system_limits(config),
        )
    except PoolError as error:
        raise StartError(str(error)) from None


def _system_limits(config: StandaloneConfig) -> SystemLimits:
    return SystemLimits(concurrency_max=config.concurrency_max)


@contextlib.contextmanager
def data_folder(path: Path) -> Iterator[None]:
    """Make the folder and hold its lock: two servers on one database would undo each other."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            raise StartError(
                f"the data folder {path} is in use by another server (process {owner}); "
                "stop it, or choose another folder with --data"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def operator_of(path: Path | None) -> Operator:
    """Read the operator's credential.  Raises: StartError."""
    try:
        return Operator.of_file(path)
    except OperatorFileError as error:
        raise StartError(str(error)) from None


def _unusable(data: Path, error: OSError) -> StartError:
    return StartError(f"the data folder {data} cannot be used: {error}")


async def _engine(config: StandaloneConfig, instance: str) -> SandboxEngine:
    """Choose the sandbox engine, once, and say so."""
    if config.sandbox in ("auto", "docker"):
        from .sandboxes.docker import DockerEngine

        try:
            docker = DockerEngine(
                config.data,
                instance=instance,
                network=config.network,
                manifest=config.manifest,
            )
        except ValueError as error:
            raise StartError(str(error)) from None
        try:
            await docker.ping()
        except SandboxError as error:
            await docker.close()
            if config.sandbox == "docker":
                raise
            if not is_loopback(config.host):
                raise StartError(
                    f"no container engine answers ({error}), and without isolation functions "
                    f"run only while the server listens on loopback, not on {config.host}; "
                    "start an engine, or choose --sandbox process yourself"
                ) from None
            log.warning("no container engine answers: %s", error)
        else:
            return docker
    if config.network == "none":
        raise StartError(
            "without a container engine functions cannot be kept from the network; "
            "start one, or leave out --network none"
        )
    from .sandboxes.process import ProcessEngine

    log.warning("functions run as PROCESSES OF THIS USER, WITHOUT ISOLATION; run only your own")
    try:
        return ProcessEngine(config.data)
    except OSError as error:
        raise _unusable(config.data, error) from None


def _instance(data: Path) -> str:
    """Return the random id by which containers of this data folder are known."""
    path = data / "instance"
    try:
        # An empty one is what a crash left behind.
        if not path.exists() or not path.read_text().strip():
            path.write_text(secrets.token_hex(8))
        return path.read_text().strip()
    except OSError as error:
        raise _unusable(data, error) from None


def _half_of_memory_mb() -> int:
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(1024, total_mb // 2)


class Server(uvicorn.Server):
    """Uvicorn without its signal handlers: in which order things stop is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _house(
    config: StandaloneConfig,
    controller: Controller,
    engine: SandboxEngine,
    pool: PoolConfig,
    api_host: str,
) -> House:
    """Link the nodes; ``pool`` is that of each invoker."""
    environment = {"__OW_API_HOST": api_host}
    if config.concurrency_max > 1:
        environment["__OW_ALLOW_CONCURRENT"] = "true"  # OpenWhisk's nodejs images ask for it
    metered = MeteredEngine(engine, config.invokers)
    if config.scheduler == "sharding":
        grace_us = pool.pause_grace_us or PUSH_PAUSE_GRACE_US
        pools = [
            PushPoolConfig(
                f"invoker{number}", pool.memory_mb, pause_grace_us=grace_us, prewarm=pool.prewarm
            )
            for number in range(config.invokers)
        ]
        return push_house(
            controller, metered, pools, config.controllers, config.concurrency_max, environment
        )
    shadow = SHADOW_RULES[config.shadow_rule]() if config.shadow_rule is not None else None
    scheduler = SchedulerConfig(
        name=f"s{secrets.token_hex(4)}",  # container ids must be new for each start
        namespace_containers_max=config.namespace_containers or CONTAINERS_MAX,
        report_decisions=shadow is not None,
        shadow=shadow,
    )
    trace = None if config.trace is None else _trace(config.trace, scheduler)
    return pull_house(controller, metered, pool, scheduler, environment, trace)


def _trace(path: Path, config: SchedulerConfig) -> TraceFile:
    try:
        return TraceFile(path, config)
    except OSError as error:
        raise StartError(f"the trace cannot be written to {path}: {error.strerror}") from None


def sqlite_url(data: Path) -> str:
    """Return where the stores of a data folder are, unless somebody says otherwise."""
    return f"sqlite:///{data / 'acs.db'}"


@contextlib.asynccontextmanager
async def stores(config: StandaloneConfig) -> AsyncIterator[tuple[EntityStore, ActivationStore]]:
    """Open the stores in the data folder; until they close, old records are deleted."""
    url = config.database_url or sqlite_url(config.data)
    database = Database(url, exclusive=not config.shared)
    await database.open()
    try:
        entities = EntityStore(
            database,
            kinds=kinds_of(config.manifest),
            limits=_system_limits(config),
            clock_ms=clock.wall_ms,
        )
        await entities.open()
        activations = await _activations(database, config.data)
        retention = Retention(
            database,
            keep_ms=round(config.keep_days * 86_400_000),
            keep_bytes=config.keep_mb * 2**20,
            clock_ms=clock.wall_ms,
        )
        retaining = asyncio.ensure_future(_retain(retention))
        try:
            yield entities, activations
        finally:
            retaining.cancel()
            await _write_rest(activations, config.data)
    finally:
        await database.close()


async def _activations(database: Database, data: Path) -> ActivationStore:
    """Open the store of records, with what a killed run had answered and not committed."""
    folder = data / "journal"
    try:
        found = journal.recover(folder)
        activations = ActivationStore(
            database,
            clock_ms=clock.wall_ms,
            buffer_max=RECORDS_BUFFERED_MAX,
            journal=journal.Journal(folder),
        )
        if found:
            log.warning("%d records of an earlier run are taken from its journal", len(found))
            await activations.restore(found)
        journal.forget(folder)
    except OSError as error:
        raise _unusable(data, error) from None
    return activations


async def _write_rest(activations: ActivationStore, data: Path) -> None:
    try:
        async with asyncio.timeout(RECORDS_S):
            await activations.close()
    except TimeoutError:
        raise StartError(
            f"the database in {data} does not take the last activation records; "
            f"they are lost after {RECORDS_S:g} s of trying"
        ) from None


# --- running -------------------------------------------------------------------------------------


async def _serve(config: StandaloneConfig, pool: PoolConfig) -> None:
    operator = operator_of(config.operator_file)
    instance = _instance(config.data)
    engine = await _engine(config, instance)
    listener = listen(config)
    port = listener.getsockname()[1]
    shown = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    async with stores(config) as (entities, activations):
        removed = await engine.remove_leftovers()
        if removed:
            log.info("removed %d containers that an earlier run left behind", removed)
        lost = await activations.sweep(clock.wall_ms())
        if lost:
            log.warning("%d accepted activations of an earlier run ended as unknown", lost)
        await first_start(entities, url)
        containers_max = config.namespace_containers or CONTAINERS_MAX
        controller = Controller(entities, activations, containers_max)
        house = _house(config, controller, engine, pool, url)
        status = Status(house, instance)
        info = {"build": "", "buildno": ""}
        app = create_app(
            entities,
            activations,
            info=info,
            settled=house.controller.settled,
            fire=Firing(entities, activations, house.controller).fire,
            invoke=house.controller.invoke,
            invokers=lambda: {f"{name}/0/standalone": "up" for name in house.names},
            pending=lambda: house.controller.counts()["pending"],
            in_flight=house.controller.in_flight,
            disable=house.controller.disable,
            operator=operator,
        )
        front = Front(house.controller, entities)
        server = Server(
            uvicorn.Config(
                with_status(app, status),
                http=front.protocol(),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
            )
        )
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop)
        refreshing = asyncio.ensure_future(refresh_when_poked(entities))
        serving = asyncio.ensure_future(server.serve(sockets=several(listener)))
        print(f"acs standalone: listening on {url}, sandbox {engine.name}", flush=True)
        spare_the_collector()
        sweeping = asyncio.ensure_future(sweep(house.controller, activations))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        try:
            await _stop(server, serving, house)
        finally:
            sweeping.cancel()
            refreshing.cancel()


def spare_the_collector() -> None:
    """Let the collector of cycles look seldom, and never at what stays for ever.

    What an activation leaves is freed by counting; with the usual 700 the collector would run
    for every twenty activations.  Measured at 16 containers: 1.08 times the throughput.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def sweep(
    controller: Controller,
    activations: ActivationStore,
    of_the_dead: Callable[[list[str]], Awaitable[list[str]]] | None = None,
) -> None:
    """See to it that every accepted activation ends in a record, whatever went wrong.

    What a controller holds it ends itself, by its monotonic clock.  So the clock on the wall, which
    may jump and which others read differently, is asked of the rest alone; of several controllers
    ``of_the_dead`` tells which ids are of none that lives.
    """
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            controller.sweep()
            ids = await activations.overdue_ids(clock.wall_ms())
            ids = [id_ for id_ in ids if not controller.is_pending(id_)]
            if ids and of_the_dead is not None:
                ids = await of_the_dead(ids)
            await activations.end_as_unknown(ids, clock.wall_ms())
        except Exception:
            log.exception("a sweep failed; the next one is in %g s", SWEEP_S)


async def _retain(retention: Retention) -> None:
    """Delete old records, so that the disk does not fill."""
    while True:
        try:
            await retention.enforce()
        except Exception:
            log.exception("old records are not deleted; the next try is in %g s", RETAIN_S)
        await asyncio.sleep(RETAIN_S)


async def refresh_when_poked(
    entities: EntityStore, refreshed: Callable[[], None] | None = None
) -> None:
    """Take over what operators change of namespaces: a revoked key stops at once.

    ``refreshed`` is called each time that this has been done.
    """
    poked = asyncio.Event()
    poked.set()  # they may have changed since they were read
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, poked.set)
    while True:
        await poked.wait()
        poked.clear()
        try:
            await entities.refresh()
            if refreshed is not None:
                refreshed()
        except Exception:
            log.exception(
                "the namespaces could not be read again; the next try is in %g s", RETRY_S
            )
            poked.set()
            await asyncio.sleep(RETRY_S)


async def _stop(server: Server, serving: asyncio.Future[None], house: House) -> None:
    """Accept nothing more, let what was accepted end and be recorded, remove the containers."""
    log.info("stopping: %d activations to end", house.controller.counts()["pending"])
    house.controller.stop_accepting()
    server.should_exit = True
    try:
        async with asyncio.timeout(STOP_S):
            await house.controller.drained()
        await end_clients(server, serving)
        async with asyncio.timeout(REMOVE_S):
            await house.drain()
    except TimeoutError:
        log.error("the stop takes too long; what has not ended is cut off")
    house.controller.close()
    await house.close()


async def end_clients(
    server: Server, serving: asyncio.Future[None], within_s: float = CLIENTS_S
) -> None:
    """Wait until clients have their answers; cut off those who neither read nor write."""
    await asyncio.wait([serving], timeout=within_s)
    if not serving.done():
        log.warning("cutting off %d clients", len(server.server_state.connections))
        for connection in list(server.server_state.connections):
            connection.transport.abort()
    await serving


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        log.warning("stopping is under way; it ends when the last activation has ended")
    stop.set()


def listen(config: StandaloneConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; "
            "choose another port with --port"
        ) from None
    return listener


def several(listener: socket.socket) -> list[socket.socket]:
    """Return the listener with copies of it: the loop accepts one connection of each in a turn.

    One turn takes tens of milliseconds under full load, and a crowd that comes then waited for
    minutes: 2,000 connections were accepted at 13 a second.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTS_IN_A_TURN - 1))]


async def first_start(entities: EntityStore, url: str) -> None:
    """Create the namespace ``guest`` where there is none at all, and say how to use it."""
    if entities.namespaces():
        return
    uuid, key = await entities.create_namespace("guest")
    path = wskprops.default_path()
    print("acs: created the namespace 'guest'; its key is shown this once:")
    print(f"  --apihost {url} --auth {uuid}:{key}")
    print(f"  {wskprops.write_if_ours(path, url, f'{uuid}:{key}')}", flush=True)
