"""The whole real stack for acceptance and fault tests: redis-server, mongod, the API, a worker and the reconciler.

Use the fixture ``stack`` (one stack for each test module), or ``make_stack`` to give settings::

    def test_a_run_survives_its_worker(stack):
        response = requests.post(f"{stack.url}/run-basket", json={"basket_name": "working_test"}, timeout=5)
        stack.kill("worker")
        stack.start("worker")

    @pytest.fixture(scope="module")
    def stack(make_stack):
        return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_WORKER_CONCURRENCY="1")

The names are ``redis``, ``mongod``, ``api``, ``worker`` and ``reconciler``. Only the test restarts a process. Each is
a process group: ``stop`` sends SIGTERM and waits, ``kill`` sends SIGKILL to the whole group, ``pause`` SIGSTOP,
``resume`` SIGCONT. ``start`` waits until the process serves: the API replies to ``/ready`` (``/health`` if a server
is down); this very worker has its presence entry in Redis. ``start(name, wait=False)`` does not wait, for a process
that cannot serve yet. Redis comes back empty, mongod with its data. Periods are short (see ``SHORT``); any setting
may be given instead. A stack that is given a ``MONGODB_URL`` starts no mongod. After a test that stops something,
:meth:`Stack.repair` brings all of it back.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pymongo
import redis
from pymongo.database import Database

from compose.embedded import api_port, bucket_process_plans, server_plans, socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan

SHORT: Final[Mapping[str, str]] = {
    "BUCKET_LEASE_S": "3",
    "BUCKET_HEARTBEAT_S": "1",
    "BUCKET_HANDOFF_S": "1",
    "BUCKET_HELD_POLLS": "8",  # few callers reach the limit
    "BUCKET_GRACE_S": "1",
    "BUCKET_DRAIN_S": "2",
    "BUCKET_WORKER_CONCURRENCY": "2",
}
_CONNECTIONS: Final = 16
_SETTINGS_WITHOUT_PREFIX: Final = ("HOST", "PORT", "REDIS_URL", "MONGODB_URL")


class SecondProcess:
    """A second process of one kind, beside the stack's own."""

    def __init__(self, plan: ChildPlan, root: Path, group_reaper: GroupReaper) -> None:
        self._log = root / f"{plan.name}-{secrets.token_hex(4)}.log"
        self._child = Child(plan, self._log, group_reaper)

    def start(self, works: Callable[[], bool]) -> None:
        """Start it, and wait until ``works`` returns true."""
        self._child.plan = replace(self._child.plan, ready=works)
        self._child.start()
        self._child.wait_ready()

    @property
    def pid(self) -> int | None:
        """Return its process id; None once it has ended."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """Return its exit code once it has ended; minus the signal number if a signal ended it."""
        return self._child.exit_code

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._child.is_alive()

    def kill(self) -> None:
        """End it and its whole group at once."""
        self._child.kill()

    def output(self) -> str:
        """Return all that it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""


class Stack:
    """Five real processes on their own sockets and one loopback port; the module's docstring says how to use them."""

    def __init__(self, root: Path, group_reaper: GroupReaper, **settings: str) -> None:
        """Prepare a stack with its data and logs in ``root``; ``settings`` are environment variables."""
        self._port = _reserve_port()
        number = int(self._port.getsockname()[1])
        self.root = root
        self.sockets = socket_dir.make_socket_dir()
        self.url = api_port.local_url("127.0.0.1", number)
        self.redis_url = server_plans.redis_url(self.sockets)
        self.mongodb_url = settings.get("MONGODB_URL") or server_plans.mongodb_url(self.sockets)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not _is_setting(name)},
            **SHORT,
            "HOST": "127.0.0.1",
            "PORT": str(number),
            "REDIS_URL": self.redis_url,
            "MONGODB_URL": self.mongodb_url,
            "PROMETHEUS_MULTIPROC_DIR": str(root / "metrics"),
            **settings,
        }
        self.group_reaper = group_reaper
        self._children = {plan.name: Child(plan, root / f"{plan.name}.log", group_reaper) for plan in self._plans()}
        self._redis: redis.Redis | None = None
        self._mongo: pymongo.MongoClient[dict[str, Any]] | None = None

    def _plans(self) -> tuple[ChildPlan, ...]:
        api = bucket_process_plans.api_plan(self.url, self.environ)
        has_own_mongod = self.mongodb_url == server_plans.mongodb_url(self.sockets)
        return (
            server_plans.redis_plan(self.sockets, self.root / "redis"),
            *((server_plans.mongod_plan(self.sockets, self.root / "mongod"),) if has_own_mongod else ()),
            replace(api, ready=self._api_serves),
            replace(bucket_process_plans.worker_plan(self.url, self.environ), ready=self._worker_has_presence),
            bucket_process_plans.reconciler_plan(self.environ),
        )

    def start_all(self) -> None:
        """Start the servers, then the other processes; wait until all of them serve."""
        for stage in (("redis", "mongod"), ("api", "worker", "reconciler")):
            names = [name for name in stage if name in self._children]
            for name in names:
                self.start(name, wait=False)
            for name in names:
                self._children[name].wait_ready()

    def start(self, name: str, *, wait: bool = True, **settings: str) -> None:
        """Start a process that does not run, with ``settings`` for this start only, and wait until it serves."""
        child = self._children[name]
        assert not child.is_alive(), f"{name} runs already"
        default_plan = child.plan
        child.plan = replace(default_plan, env={**default_plan.env, **settings})
        child.start()
        child.plan = default_plan
        if wait:
            child.wait_ready()

    @contextmanager
    def second_process(self, name: str, **settings: str) -> Iterator[SecondProcess]:
        """Run a second worker or reconciler while the block runs; wait until it works."""
        second = SecondProcess(self.plan(name, **settings), self.root, self.group_reaper)
        second.start(lambda: self.has_presence(second.pid) if name == "worker" else bool(second.output()))
        try:
            yield second
        finally:
            second.kill()

    def plan(self, name: str, **settings: str) -> ChildPlan:
        """Return the plan by which a process is run, changed by ``settings``."""
        default_plan = self._children[name].plan
        return replace(default_plan, env={**default_plan.env, **settings})

    def stop(self, name: str) -> None:
        """End a process by SIGTERM and wait for its end; kill it after its grace period."""
        self._children[name].stop()

    def kill(self, name: str) -> None:
        """End a process and its whole group at once (SIGKILL)."""
        self._children[name].kill()

    def pause(self, name: str) -> None:
        """Freeze a process and its whole group (SIGSTOP)."""
        self._children[name].pause()

    def resume(self, name: str) -> None:
        """Continue a paused process and its whole group (SIGCONT)."""
        self._children[name].resume()

    def repair(self) -> None:
        """Resume what is paused, start what does not run (servers first), and wait until the API has noticed."""
        for name, child in self._children.items():
            if child.is_alive():
                child.resume()
            else:
                self.start(name)
        self._children["api"].wait_ready()

    def is_alive(self, name: str) -> bool:
        """Return whether a process runs."""
        return self._children[name].is_alive()

    def pid(self, name: str) -> int:
        """Return the process id of a running process; it leads its group."""
        pid = self._children[name].pid
        assert pid is not None, f"{name} does not run"
        return pid

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a process that has ended; minus the signal number if a signal ended it."""
        return self._children[name].exit_code

    def logs(self, name: str) -> str:
        """Return all that a process has printed since the stack was made."""
        log = self.root / f"{name}.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def redis(self) -> redis.Redis:
        """Return the stack's one client of its Redis."""
        if self._redis is None:
            self._redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        return self._redis

    def mongo(self) -> Database[dict[str, Any]]:
        """Return the stack's database. There is one client only, because each client has three threads."""
        if self._mongo is None:
            self._mongo = pymongo.MongoClient(self.mongodb_url)
        return self._mongo.get_default_database()

    def close(self) -> None:
        """Kill every process and delete the data, which is temporary; the logs stay."""
        for client in (self._redis, self._mongo):
            if client is not None:
                client.close()
        for child in reversed(self._children.values()):
            child.kill()
        self._port.close()
        for server in ("redis", "mongod"):
            shutil.rmtree(self.root / server, ignore_errors=True)
        socket_dir.remove_socket_dir(self.sockets)

    def _api_serves(self) -> bool:
        # /ready is 503 while a server is away, which a test may want; /health is always 200. Many connections are used,
        # because each may reach any of the API's processes, and each process notices for itself.
        servers_run = all(child.is_alive() for name, child in self._children.items() if name in {"redis", "mongod"})
        url = f"{self.url}/{'ready' if servers_run else 'health'}"
        return all(bucket_process_plans.fetch_json(url) for _ in range(_CONNECTIONS))

    def _worker_has_presence(self) -> bool:
        return self.has_presence(self.pid("worker"))

    def has_presence(self, pid: int | None) -> bool:
        # By name, with the process id: the presence entry of a worker that was killed stays for 15 s.
        with closing(redis.Redis.from_url(self.redis_url, decode_responses=True)) as client:
            return client.zscore("workers", f"{socket.gethostname()}:{pid}") is not None


def _reserve_port() -> socket.socket:
    """Reserve a free port while the socket is open; a server with SO_REUSEADDR, like gunicorn, can listen on it.

    A port that is merely found free may belong to another process by the time the API starts, or starts again.
    """
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))  # before SO_REUSEADDR is set, or the port could be that of another such socket
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reserved


def _is_setting(name: str) -> bool:
    return name.startswith("BUCKET_") or name in _SETTINGS_WITHOUT_PREFIX
