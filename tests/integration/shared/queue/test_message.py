"""Task messages built from a template equal those of Celery, and a real worker processes them."""

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

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER
from shared.queue.message import RUN_STEP_TASK, TaskMessage, encode_message, enqueue, list_key, message_from_args
from shared.settings import Settings

MESSAGE = TaskMessage(
    "public", "1763700000_89ce24ad1b2c3d4e", "step-1", datetime(2026, 11, 21, 12, 0, 0, 123_000, tzinfo=UTC)
)
# A message has its arguments once, and no result is expected.
CHOSEN = {"argsrepr": "", "kwargsrepr": "", "ignore_result": True}
UNIQUE = ("id", "root_id", "correlation_id", "delivery_tag", "reply_to", "origin")


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Yield a Celery app with the worker's settings, on a real Redis."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    from worker.app import celery_config_of

    app = Celery("test", set_as_current=False)
    app.conf.update(celery_config_of(Settings(redis_url=redis_url)))
    yield app
    app.close()


def decoded(message: bytes) -> dict[str, Any]:
    """Return a message with its body decoded, without the fields that differ for each message."""
    envelope: dict[str, Any] = json.loads(message)
    envelope["body"] = json.loads(base64.b64decode(envelope["body"]))
    for part in ("headers", "properties"):
        envelope[part] = {name: value for name, value in envelope[part].items() if name not in UNIQUE}
    return envelope


@pytest.mark.parametrize("priority", [PRIORITY_FIRST_OFFER, PRIORITY_REOFFER])
@pytest.mark.parametrize("queue", QUEUE_NAMES)
def test_a_message_equals_what_send_task_makes_for_the_same_call(
    app: Celery, client: redis.Redis, queue: str, priority: int
) -> None:
    app.send_task(RUN_STEP_TASK, args=MESSAGE.args, queue=queue, priority=priority)
    from_celery = client.rpop(list_key(queue, priority))
    assert isinstance(from_celery, bytes), "Celery pushed it to the list that Bucket reads"
    encoded = encode_message(MESSAGE, queue, priority)
    expected = decoded(from_celery)
    expected["headers"] |= CHOSEN
    assert decoded(encoded) == expected
    for part in ("headers", "properties"):
        assert json.loads(encoded)[part].keys() == json.loads(from_celery)[part].keys()


def test_a_message_decodes_to_what_was_encoded() -> None:
    assert message_from_args(*MESSAGE.args) == MESSAGE


def test_a_real_worker_processes_messages_rescues_first(app: Celery, client: redis.Redis) -> None:
    heard: list[list[Any]] = []
    done = threading.Event()

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any) -> None:
        heard.append(list(args))
        if len(heard) == 2:
            done.set()

    again = TaskMessage("public", MESSAGE.execution_id, "rescued", MESSAGE.offered_at)
    enqueue(client, MESSAGE, "default", PRIORITY_FIRST_OFFER)
    enqueue(client, again, "default", PRIORITY_REOFFER)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
        assert done.wait(10)
    assert heard == [again.args, MESSAGE.args]
