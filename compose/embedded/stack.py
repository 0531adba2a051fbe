"""Builds the embedded stack from the settings: the servers that it runs itself, then the API and the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compose.embedded import bucket_processes, servers, tcp_port
from compose.embedded.process_plan import Stage
from compose.operator_error import OperatorError
from shared.settings import Settings

# Added to the processes' own shutdown time, so that their orderly shutdown comes before the kill.
_STOP_MARGIN_S: Final = 5.0
_DEVELOPMENT_DRAIN_S: Final = "3"


@dataclass(frozen=True, slots=True)
class Stack:
    """What to run: ``url`` is the API's, ``server_stages`` are the servers started here, ``app_stage`` uses them."""

    url: str
    redis_url: str
    mongodb_url: str
    server_stages: tuple[Stage, ...]
    app_stage: Stage


def build_stack(settings: Settings, environ: Mapping[str, str], sockets: Path, data: Path) -> Stack:
    """Return the stack for ``settings``; servers whose URLs are in ``environ`` are used and not started.

    Raises OperatorError in production, where the embedded servers must not be used, and if a server cannot be found.
    """
    if settings.environment == "production":
        raise OperatorError(
            "BUCKET_ENV=production: the embedded servers are old, without passwords, and for development only",
            fix="deploy with compose/compose.yaml or the Procfile (docs/deploy.md), or leave BUCKET_ENV out",
        )
    server_stages = []
    redis_url, mongodb_url = environ.get("REDIS_URL"), environ.get("MONGODB_URL")
    if not redis_url:
        server_stages.append(Stage("redis", (servers.redis_plan(sockets, data / "redis"),)))
        redis_url = servers.redis_url(sockets)
    if not mongodb_url:
        server_stages.append(Stage("mongod", (servers.mongod_plan(sockets, data / "mongod"),)))
        mongodb_url = servers.mongodb_url(sockets)
    url = tcp_port.local_url(settings.host, settings.port)
    env = {
        "BUCKET_DRAIN_S": _DEVELOPMENT_DRAIN_S,  # a stop by Ctrl-C should not take half a minute
        **environ,
        "HOST": settings.host,
        "PORT": str(settings.port),
        "REDIS_URL": redis_url,
        "MONGODB_URL": mongodb_url,
        "PROMETHEUS_MULTIPROC_DIR": str(data / "metrics"),  # a fixed path, so that the next start finds and empties it
        "PYTHONUNBUFFERED": "1",
    }
    app_stage = build_app_stage(url, env)
    return Stack(url, redis_url, mongodb_url, tuple(server_stages), app_stage)


def build_app_stage(url: str, env: Mapping[str, str]) -> Stage:
    """Return the stage of the API, a worker and the reconciler, all with the environment ``env``."""
    stop_timeout_s = float(env["BUCKET_DRAIN_S"]) + _STOP_MARGIN_S
    return Stage(
        "api and workers",
        (
            bucket_processes.api_plan(url, env, stop_timeout_s),
            bucket_processes.worker_plan(url, env, stop_timeout_s),
            bucket_processes.reconciler_plan(env),
        ),
    )
