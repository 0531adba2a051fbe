"""A worker's name bears its queues, so that the pools of a machine differ in its logs."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from compose.embedded import bucket_process_plans
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from worker.app import node_name

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("given", "queues", "name"),
    [
        (None, None, f"default+long@{HOST}"),
        ("celery@vm", ["default"], "default@vm"),
        ("celery@vm", "default,long", "default+long@vm"),
        ("payments@vm", ["long"], "payments@vm"),
        ("payments@", ["long"], f"payments@{HOST}"),
    ],
)
def test_the_default_name_gives_way_to_the_queues(given: str | None, queues: list[str] | str | None, name: str) -> None:
    assert node_name(given, queues) == name


@pytest.mark.parametrize("queues", ["default,long", "long"])
def test_a_real_worker_says_its_name(
    redis_url: str, mongodb_url: str, tmp_path: Path, group_reaper: GroupReaper, queues: str
) -> None:
    log = tmp_path / "worker.log"
    environ = {"REDIS_URL": redis_url, "MONGODB_URL": mongodb_url, "BUCKET_WORKER_CONCURRENCY": "1"}
    plan = bucket_process_plans.worker_plan("", environ)

    def is_ready() -> bool:
        return " ready." in log.read_text()

    child = Child(replace(plan, argv=(*plan.argv, "--queues", queues), ready=is_ready), log, group_reaper)
    try:
        child.start()
        child.wait_ready()
        assert f'"{queues.replace(",", "+")}@{HOST} ready."' in log.read_text()
    finally:
        child.kill()
