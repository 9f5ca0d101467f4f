"""`offhook up`: embedded servers where none are given, migrations, then every service, watched and restarted.

Order of start: Valkey, PostgreSQL, migrations, models, services. One Ctrl-C stops them in the reverse order of their
need: telephony first (it hangs up and saves recordings), the agent after it (it writes the last rows), servers last.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx

from calls.errors import OffhookError, SettingsError
from calls.settings import Settings
from offhook import local
from offhook.process import Service
from offhook.secrets import Secrets, load_or_make
from offhook.servers import EmbeddedPostgres, EmbeddedValkey

log = logging.getLogger(__name__)

Say = Callable[[str], None]

# name, arguments of python, niceness. The order is the order of starting; stopping is _STOP_ORDER.
_SERVICES: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("worker", ("-m", "model_worker"), 0),
    ("agent", ("-m", "agent"), 0),
    ("telephony", ("-m", "telephony"), 0),
    ("console", ("-m", "console"), 0),
    ("wrap-up", ("-m", "celery", "-A", "agent.jobs", "worker", "--concurrency", "1", "--loglevel", "WARNING"), 10),
)
_STOP_ORDER = ("telephony", "agent", "worker", "console", "wrap-up")
READY_S = 120.0
READY_LARGE_S = 900.0  # a checkpoint of many gigabytes, from a slow disk
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Supervisor:
    """Everything between `offhook up` and Ctrl-C. `settings` are the user's; what is missing is filled in here."""

    def __init__(self, settings: Settings, say: Say, verbose: bool = False) -> None:
        self._settings = settings
        self._say = say
        self._verbose = verbose
        self._data = settings.data.expanduser().resolve()
        self._secrets: Secrets
        self._valkey: EmbeddedValkey | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._env: dict[str, str] = {}
        self.services: dict[str, Service] = {}
        self.running: local.Running
        self.stopping = False  # in order, which must not be cut off

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[local.Running]:
        """Everything runs while the body does; entered when the service is ready to take calls."""
        with self._data_lock():
            self._secrets = load_or_make(self._data)
            (self._data / "recordings").mkdir(exist_ok=True, mode=0o700)
            self._check_ports()
            try:
                await self._start_servers()
                await self._prepare()
                async with asyncio.TaskGroup() as group:
                    watchers = [group.create_task(self._watch_servers())]
                    watchers += [group.create_task(service.run()) for service in self._make_services()]
                    try:
                        await self._wait_until_ready()
                        local.announce(self.running)
                        yield self.running
                    finally:
                        self.stopping = True
                        local.withdraw(self.running)
                        await self._stop_services()
                        for watcher in watchers:
                            watcher.cancel()
            finally:
                await asyncio.to_thread(self._stop_servers)

    @property
    def password_is_new(self) -> bool:
        return self._secrets.first_start and not self._settings.password

    # --- before the services -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _data_lock(self) -> Iterator[None]:
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            lock = (self._data / "lock").open("w")
        except OSError as error:
            raise SettingsError(f"cannot write in the data folder {self._data}: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsError(
                    f"another `offhook up` uses {self._data}: stop it, or give this one a folder with --data"
                ) from None
            yield

    def _check_ports(self) -> None:
        """A port that is taken is said now and by name, not by a service that cannot start."""
        s = self._settings
        for what, kind, host, port, option in (
            ("the console", socket.SOCK_STREAM, s.host, s.port, "--port"),
            ("SIP over UDP", socket.SOCK_DGRAM, s.sip_host, s.sip_port, "--sip-port"),
            ("SIP over TCP", socket.SOCK_STREAM, s.sip_host, s.sip_port, "--sip-port"),
            ("media (Twilio, WebRTC)", socket.SOCK_STREAM, s.media_host, s.media_port, "--media-port"),
        ):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    raise SettingsError(
                        f"{what} cannot listen on {host}:{port} ({error.strerror}): choose another with {option}"
                    ) from error

    async def _start_servers(self) -> None:
        if not self._settings.redis_url:
            self._valkey = EmbeddedValkey(self._data / "valkey", self._secrets.valkey_password)
            self._say("starting Valkey")
            await asyncio.to_thread(self._valkey.start)
        if not self._settings.database_url:
            self._postgres = EmbeddedPostgres(self._data / "postgres")
            self._say("starting PostgreSQL")
            await asyncio.to_thread(self._postgres.start)

    async def _prepare(self) -> None:
        self._env = self._environment()
        s = self._settings
        scheme = "https" if s.tls_cert else "http"
        host = "127.0.0.1" if s.host in ("0.0.0.0", "::") else s.host
        self.running = local.Running(
            url=f"{scheme}://{host}:{s.port}",
            password=self._env["OFFHOOK_PASSWORD"],
            pid=os.getpid(),
            data=str(self._data),
            sip_host="127.0.0.1" if s.sip_host == "0.0.0.0" else s.sip_host,
            sip_port=s.sip_port,
            media_url=f"http://{'127.0.0.1' if s.media_host == '0.0.0.0' else s.media_host}:{s.media_port}",
            public_url=s.public_url,
            twilio_auth_token=self._env["OFFHOOK_TWILIO_AUTH_TOKEN"],
            database_url=self._env["OFFHOOK_DATABASE_URL"],
        )
        self._say("migrating the database")
        await self._run_to_end("the database migration", "-m", "offhook.migrate")
        if s.model != "echo":
            self._say("checking the models")
            await self._run_to_end("pulling the models", "-m", "model_worker.pull", "--needed")

    def _environment(self) -> dict[str, str]:
        """The services' settings: the user's, and what was started or made here."""
        s, kept = self._settings, self._secrets
        env = dict(os.environ)
        for name, value in s.model_dump(mode="json", exclude_none=True).items():
            env[f"OFFHOOK_{name.upper()}"] = json.dumps(value) if isinstance(value, dict) else str(value)
        env["OFFHOOK_DATA"] = str(self._data)
        env["OFFHOOK_PASSWORD"] = s.password or kept.password
        env["OFFHOOK_SECRET"] = s.secret or kept.secret
        env["OFFHOOK_TWILIO_AUTH_TOKEN"] = s.twilio_auth_token or kept.twilio_auth_token
        if self._valkey:
            env["OFFHOOK_REDIS_URL"] = self._valkey.url
        if self._postgres:
            env["OFFHOOK_DATABASE_URL"] = self._postgres.url
        for name in _THREAD_LIMITS:
            env.setdefault(name, "1")
        env["PYTHONUNBUFFERED"] = "1"
        return env

    async def _run_to_end(self, what: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=self._env)
        if await process.wait() != 0:
            raise OffhookError(f"{what} failed; its message is above")

    # --- the services ------------------------------------------------------------------------------------------------

    def _make_services(self) -> list[Service]:
        logs = self._data / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        for name, arguments, nice in _SERVICES:
            self.services[name] = Service(
                name,
                [sys.executable, *arguments],
                self._env,
                logs / f"{name}.log",
                self._on_line,
                nice,
            )
        return list(self.services.values())

    def _on_line(self, name: str, line: str) -> None:
        if self._verbose or " ERROR " in line or " CRITICAL " in line:
            self._say(f"{name}: {line}")

    async def _wait_until_ready(self) -> None:
        """Until /healthz says so. What is still missing is said every few seconds."""
        self._say("starting the services")
        timeout_s = READY_S if self._settings.model in ("cascade", "echo") else READY_LARGE_S
        verify = self._settings.tls_cert is None
        deadline, say_again = time.monotonic() + timeout_s, time.monotonic() + 8
        missing = "the console"
        async with httpx.AsyncClient(verify=verify, timeout=3.0) as client:
            while time.monotonic() < deadline:
                try:
                    health = await client.get(f"{self.running.url}/healthz")
                    if health.status_code == 200:
                        return
                    missing = ", ".join(health.json().get("missing", ["?"]))
                except (httpx.HTTPError, ValueError):
                    pass
                if time.monotonic() > say_again:
                    self._say(f"waiting for {missing}")
                    say_again += 8
                await asyncio.sleep(0.2)
        raise OffhookError(f"not ready after {timeout_s:.0f} s: {missing}; see the logs in {self._data / 'logs'}")

    async def _watch_servers(self) -> None:
        """Restart an embedded server that died. The services wait for it by themselves."""
        while True:
            await asyncio.sleep(0.2)
            for name, server in (("Valkey", self._valkey), ("PostgreSQL", self._postgres)):
                if server is None or server.alive():
                    continue
                log.warning("%s ended: starting it again", name)
                try:
                    await asyncio.to_thread(server.start)
                except OffhookError as error:
                    log.error("%s", error)
                    await asyncio.sleep(2)

    async def _stop_services(self) -> None:
        for name in _STOP_ORDER:
            if name in self.services:
                await self.services[name].stop()

    def _stop_servers(self) -> None:
        for server in (self._postgres, self._valkey):
            if server is not None:
                with contextlib.suppress(subprocess.SubprocessError):
                    server.stop()


async def run(settings: Settings, say: Say, on_ready: Callable[[Supervisor], object], verbose: bool = False) -> None:
    """Run until SIGINT or SIGTERM. `on_ready` may return a coroutine (the demo) that runs beside the service.

    Raises OffhookError with what to do.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor(settings, say, verbose)
    main = asyncio.create_task(_serve(supervisor, on_ready))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({main, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not main.done():
        say("stopping")
        if not supervisor.stopping:
            main.cancel()
    stopped.cancel()
    try:
        await main
    except asyncio.CancelledError:
        say("stopped")
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _serve(supervisor: Supervisor, on_ready: Callable[[Supervisor], object]) -> None:
    """Until it is cancelled."""
    async with supervisor.up():
        beside = on_ready(supervisor)
        if asyncio.iscoroutine(beside):
            await beside
        await asyncio.Future()
