"""Puts the embedded stack together from the settings: which servers of its own, then the API and the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compose.embedded import bucket_processes, servers, tcp_port
from compose.embedded.process_plan import Stage
from compose.errors import OperatorError
from shared.settings import Settings

# Over the ends that the processes set themselves: their own, orderly end comes first.
_STOP_MARGIN_S: Final = 5.0
_DEVELOPMENT_DRAIN_S: Final = "3"


@dataclass(frozen=True, slots=True)
class Stack:
    """What is to be run: ``url`` is the API's, ``own`` the servers that are started here, ``apps`` what uses them."""

    url: str
    redis_url: str
    mongodb_url: str
    server_stages: tuple[Stage, ...]
    app_stage: Stage


def build_stack(settings: Settings, environ: Mapping[str, str], sockets: Path, data: Path) -> Stack:
    """Answer the stack that ``settings`` ask for; servers that ``environ`` names by URL are used and not started.

    Raises Trouble in production, where the embedded servers have no place, and where a server cannot be found.
    """
    if settings.environment == "production":
        raise OperatorError(
            "BUCKET_ENV=production: the embedded servers are old, without passwords, and for development only",
            fix="deploy with compose/compose.yaml or the Procfile (docs/deploy.md), or leave BUCKET_ENV out",
        )
    own = []
    redis_url, mongodb_url = environ.get("REDIS_URL"), environ.get("MONGODB_URL")
    if not redis_url:
        own.append(Stage("redis", (servers.redis_plan(sockets, data / "redis"),)))
        redis_url = servers.redis_url(sockets)
    if not mongodb_url:
        own.append(Stage("mongod", (servers.mongod_plan(sockets, data / "mongod"),)))
        mongodb_url = servers.mongodb_url(sockets)
    url = tcp_port.local_url(settings.host, settings.port)
    env = {
        "BUCKET_DRAIN_S": _DEVELOPMENT_DRAIN_S,  # a Ctrl-C should not take half a minute
        **environ,
        "HOST": settings.host,
        "PORT": str(settings.port),
        "REDIS_URL": redis_url,
        "MONGODB_URL": mongodb_url,
        "PROMETHEUS_MULTIPROC_DIR": str(data / "metrics"),  # one that the next start finds and empties
        "PYTHONUNBUFFERED": "1",
    }
    apps = build_app_stage(url, env)
    return Stack(url, redis_url, mongodb_url, tuple(own), apps)


def build_app_stage(url: str, env: Mapping[str, str]) -> Stage:
    """Answer the API, a worker and the reconciler, with ``env`` for all their settings."""
    stop_within_s = float(env["BUCKET_DRAIN_S"]) + _STOP_MARGIN_S
    return Stage(
        "api and workers",
        (
            bucket_processes.api_plan(url, env, stop_within_s),
            bucket_processes.worker_plan(url, env, stop_within_s),
            bucket_processes.reconciler_plan(env),
        ),
    )
