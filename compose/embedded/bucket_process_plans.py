"""Child plans of Bucket's own processes: the API, the workers and the reconciler, with the commands of the Procfile."""

from __future__ import annotations

import json
import sys
import sysconfig
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from compose.embedded.process_plan import ChildPlan

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "api": ("gunicorn", "-c", "python:api.gunicorn", "api.wsgi:app"),
    "worker": ("python", "-m", "worker"),
    "reconciler": ("python", "-m", "worker.reconciler"),
}
_TIMEOUT_S: Final = 5.0


def api_plan(url: str, env: Mapping[str, str], stop_timeout_s: float = 10.0) -> ChildPlan:
    """Return the plan of the API, which is ready when ``url``/ready says so."""
    return ChildPlan("api", _argv("api"), lambda: bool(fetch_json(f"{url}/ready")), env, stop_timeout_s=stop_timeout_s)


def worker_plan(
    url: str,
    env: Mapping[str, str],
    stop_timeout_s: float = 30.0,
    *,
    key: str | None = None,
    with_reconciler: bool = False,
) -> ChildPlan:
    """Return the plan of a worker, which may embed the reconciler.

    It is ready when the API at ``url`` sees a worker; ``key`` is for that question.
    """
    argv = (*_argv("worker"), *(["--reconciler"] if with_reconciler else []))
    return ChildPlan("worker", argv, lambda: _has_worker(url, key), env, stop_timeout_s=stop_timeout_s)


def reconciler_plan(env: Mapping[str, str]) -> ChildPlan:
    """Return the plan of a reconciler of its own, which has no readiness check."""
    return ChildPlan("reconciler", _argv("reconciler"), env=env)


def fetch_json(url: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> dict[str, Any]:
    """Return the JSON response of ``url`` to a GET, or to a POST of ``body``; raises OSError if it is an error.

    ``key`` is the API key to send, if any.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - our own http URL
    # Ignore the environment's proxy: both processes are on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        reply: dict[str, Any] = json.load(response)
        return reply


def _argv(name: str) -> tuple[str, ...]:
    program, *arguments = COMMANDS[name]
    # By its script: after `python -m gunicorn` it cannot start itself anew for an upgrade in place (SIGUSR2).
    script = () if program == "python" else (str(Path(sysconfig.get_path("scripts"), program)),)
    return (sys.executable, *script, *arguments)


def _has_worker(url: str, key: str | None) -> bool:
    return bool(fetch_json(f"{url}/health", key=key)["services"]["workers"] == "connected")
