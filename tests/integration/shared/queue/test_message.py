"""The message made from a template is the one that Celery would send, and a real worker answers it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from shared.queue.message import (
    PRIORITY_FIRST_OFFER,
    PRIORITY_REOFFER,
    QUEUES,
    RUN_STEP_TASK,
    TaskMessage,
    encode_message,
    enqueue,
    list_key,
    message_from_args,
)
from shared.settings import Settings

BELL = TaskMessage(
    "public", "1763700000_89ce24ad1b2c3d4e", "step-1", datetime(2026, 11, 21, 12, 0, 0, 123_000, tzinfo=UTC)
)
# A message bears its arguments once, and nobody waits for a result.
CHOSEN = {"argsrepr": "", "kwargsrepr": "", "ignore_result": True}
UNIQUE = ("id", "root_id", "correlation_id", "delivery_tag", "reply_to", "origin")


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A Celery app with the worker's settings, on a real Redis."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from worker.app import celery_config_of

    app = Celery("test", set_as_current=False)
    app.conf.update(celery_config_of(Settings(redis_url=redis_url)))
    yield app
    app.close()


def opened(message: bytes) -> dict[str, Any]:
    """A message with its body decoded, what is made anew for each one taken out."""
    shown: dict[str, Any] = json.loads(message)
    shown["body"] = json.loads(base64.b64decode(shown["body"]))
    for part in ("headers", "properties"):
        shown[part] = {name: value for name, value in shown[part].items() if name not in UNIQUE}
    return shown


@pytest.mark.parametrize("priority", [PRIORITY_FIRST_OFFER, PRIORITY_REOFFER])
@pytest.mark.parametrize("queue", QUEUES)
def test_a_bell_is_what_send_task_makes_for_the_same_call(
    app: Celery, client: redis.Redis, queue: str, priority: int
) -> None:
    app.send_task(RUN_STEP_TASK, args=BELL.args, queue=queue, priority=priority)
    sent = client.rpop(list_key(queue, priority))
    assert isinstance(sent, bytes), "Celery put it into the list that Bucket reads"
    made = encode_message(BELL, queue, priority)
    expected = opened(sent)
    expected["headers"] |= CHOSEN
    assert opened(made) == expected
    for part in ("headers", "properties"):
        assert json.loads(made)[part].keys() == json.loads(sent)[part].keys()


def test_a_bell_reads_back_what_it_bears() -> None:
    assert message_from_args(*BELL.args) == BELL


def test_a_real_worker_answers_bells_those_again_first(app: Celery, client: redis.Redis) -> None:
    heard: list[list[Any]] = []
    done = threading.Event()

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any) -> None:
        heard.append(list(args))
        if len(heard) == 2:
            done.set()

    again = TaskMessage("public", BELL.execution_id, "rescued", BELL.offered_at)
    enqueue(client, BELL, "default", PRIORITY_FIRST_OFFER)
    enqueue(client, again, "default", PRIORITY_REOFFER)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
        assert done.wait(10)
    assert heard == [again.args, BELL.args]
