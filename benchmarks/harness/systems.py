"""The systems under test: Bucket and the reference, each with a redis-server and a mongod of its own, started alike.

Own servers, so that their CPU can be read per process and neither has the other's data in its caches. Systems that are
compared are up at the same time; the CPU of each at rest is measured too, because it also slows down the others.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pymongo
import redis

from benchmarks.harness.builds import THIS_BUILD, Build
from benchmarks.harness.cpu_time import children_of
from benchmarks.harness.http_dialects import REFERENCE, HttpDialect
from compose.embedded import api_port, bucket_process_plans, server_plans, socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan

API_PROCESSES: Final = 2
API_THREADS: Final = 16
WORKER_PROCESSES: Final = 2
_SETTING_PREFIXES: Final = ("BUCKET_", "CELERY_", "GUNICORN_", "FLASK_")
_SETTINGS: Final = ("HOST", "PORT", "REDIS_URL", "MONGODB_URL", "PROMETHEUS_MULTIPROC_DIR")
_STORES: Final = ("redis", "mongod")
_CONNECTIONS: Final = 16
_NOT_FOUND: Final = 404
_TMPFS: Final = Path("/dev/shm")  # noqa: S108 - a heartbeat must not wait for a disk


class SystemUnderTest:
    """The processes and stores of one system.

    ``accepted_count`` counts all submits that were accepted; ``finished_ids`` are the runs of the last load that waited
    for their end.
    """

    def __init__(
        self,
        dialect: HttpDialect,
        root: Path,
        group_reaper: GroupReaper,
        *,
        build: Build = THIS_BUILD,
        **settings: str,
    ) -> None:
        """Prepare a system that stores data and logs in ``root``; ``settings`` are environment variables.

        ``build`` is the build of Bucket that it runs; the reference is always that of this build.
        """
        self.dialect = dialect
        self.accepted_count = 0
        self.finished_ids: Sequence[str] = ()
        self.address = ("127.0.0.1", api_port.pick_port("127.0.0.1", 0))
        self.url = api_port.local_url(*self.address)
        self._sockets = socket_dir.make_socket_dir()
        self.redis_url = server_plans.redis_url(self._sockets)
        self.mongodb_url = server_plans.mongodb_url(self._sockets)
        self.redis = redis.Redis.from_url(self.redis_url)
        self.mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.mongodb_url, connect=False)
        root.mkdir(parents=True, exist_ok=True)
        env = self._environment(root) | settings
        own_plans = _reference_plans(self.url, env) if dialect is REFERENCE else _bucket_plans(self.url, env, build)
        plans = (
            server_plans.redis_plan(self._sockets, root / "redis"),
            server_plans.mongod_plan(self._sockets, root / "mongod"),
            *map(build.own_plan, own_plans),
        )
        self.children = {plan.name: Child(plan, root / f"{plan.name}.log", group_reaper) for plan in plans}

    def _environment(self, root: Path) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_SETTING_PREFIXES) and name not in _SETTINGS
        }  # fmt: skip
        return inherited | {
            "HOST": self.address[0],
            "PORT": str(self.address[1]),
            "REDIS_URL": self.redis_url,
            "MONGODB_URL": self.mongodb_url,
            "PROMETHEUS_MULTIPROC_DIR": str(root / "metrics"),
        }

    def start(self) -> None:
        """Start the stores, then the rest, and wait until all are ready."""
        ours = tuple(name for name in self.children if name not in _STORES)
        for names in (_STORES, ours):
            for name in names:
                self.children[name].start()
            for name in names:
                self.children[name].wait_ready()

    def run_only_stores(self) -> None:
        """Start the stores if they do not run, and stop all the rest."""
        for name, child in self.children.items():
            if name not in _STORES:
                child.stop()
            elif not child.is_alive():
                child.start()
                child.wait_ready()

    def mongodb_url_of(self, database: str) -> str:
        """Return the URL of another database on the same mongod."""
        return server_plans.mongodb_url(self._sockets, database)

    def close(self) -> None:
        """Kill all processes; the data is in a temporary directory."""
        with suppress(Exception):
            self.redis.close()
            self.mongo.close()
        for child in reversed(self.children.values()):
            child.kill()
        socket_dir.remove_socket_dir(self._sockets)

    def check_alive(self) -> None:
        """Raise RuntimeError if a process has ended: the benchmark ends none."""
        for name, child in self.children.items():
            if not child.is_alive():
                raise RuntimeError(f"{self.dialect.name}: {name} has ended\n{child.log_tail()}")

    @contextmanager
    def paused_worker(self) -> Iterator[None]:
        """Pause the worker during the block, so that runs are accepted and not executed."""
        worker = self.children["worker"]
        worker.pause()
        try:
            yield
        finally:
            worker.resume()

    def pids(self) -> dict[str, int]:
        """Return the ids of the started processes by name; their own children are not included."""
        return {name: child.pid for name, child in self.children.items() if child.pid is not None}

    def api_pids(self) -> list[int]:
        """Return the ids of the processes that accept connections."""
        return children_of(self.pids()["api"])

    def backlog_size(self) -> int:
        """Return the backlog: the number of messages that wait in Redis."""
        pipe = self.redis.pipeline(transaction=False)
        for name in self.dialect.queues:
            pipe.llen(name)
        return sum(pipe.execute())

    def completed_count(self) -> int:
        """Return the number of completed runs in MongoDB."""
        return self.mongo.get_default_database()[self.dialect.collection].count_documents({"status": "completed"})


def _bucket_plans(url: str, env: Mapping[str, str], build: Build) -> tuple[ChildPlan, ...]:
    """Build the plans of Bucket with its default settings, except for the numbers of processes, as `make up` does."""
    numbers = {
        "BUCKET_API_PROCESSES": str(API_PROCESSES),
        "BUCKET_API_THREADS": str(API_THREADS),
        "BUCKET_WORKER_CONCURRENCY": str(WORKER_PROCESSES),
    }
    env = numbers | dict(env)
    api = replace(
        bucket_process_plans.api_plan(url, env),
        # Each connection reaches any of the processes, and each of them has to be ready.
        ready=lambda: all(bucket_process_plans.fetch_json(f"{url}/ready") for _ in range(_CONNECTIONS)),
    )
    worker = bucket_process_plans.worker_plan(url, env, with_reconciler=True)
    if (build.root / "worker" / "__main__.py").is_file():
        return api, worker
    # An older build, whose worker starts by Celery's command and embeds no reconciler.
    celery = (sys.executable, str(Path(sysconfig.get_path("scripts"), "celery")))
    old_worker = replace(worker, argv=(*celery, "--app", "worker.app", "worker"))
    return api, old_worker, bucket_process_plans.reconciler_plan(env)


def _reference_plans(url: str, env: Mapping[str, str]) -> tuple[ChildPlan, ...]:
    """Build the plans of the reference, with the same gunicorn settings and as many workers."""
    env = dict(env) | {"API_THREADS": str(API_THREADS)}
    settings = {
        "bind": url.removeprefix("http://"),
        "workers": API_PROCESSES,
        "worker-class": "gthread",
        "threads": API_THREADS,
        "keep-alive": 75,
        "backlog": 2048,
        "worker-tmp-dir": _TMPFS if _TMPFS.is_dir() else tempfile.gettempdir(),
    }
    flags = (text for name, value in settings.items() for text in (f"--{name}", str(value)))
    gunicorn = (sys.executable, "-m", "gunicorn", *flags, "--reuse-port", "--no-control-socket")
    celery = (sys.executable, "-m", "celery", "--app", "benchmarks.reference.tasks", "worker")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    return (
        ChildPlan("api", (*gunicorn, "benchmarks.reference.app:app"), lambda: _serves(url), env),
        ChildPlan("worker", (*celery, "--concurrency", str(WORKER_PROCESSES), *quiet), env=env),
    )


def _serves(url: str) -> bool:
    try:
        bucket_process_plans.fetch_json(f"{url}/run/none")
    except urllib.error.HTTPError as refused:
        with closing(refused):
            return refused.code == _NOT_FOUND
    return False
