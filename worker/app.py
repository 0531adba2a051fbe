"""The Celery process: settings that were paid for, and the task that answers bells.

``celery --app worker.app worker`` needs no options; the queues of a pool may be narrowed with ``-Q``.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final

from celery import Celery, signals
from celery.apps.worker import Worker
from kombu.connection import Connection
from kombu.entity import Queue

from shared import faults
from shared.bootstrap import bootstrap
from shared.queue.message import PRIORITY_STEPS, QUEUES
from shared.settings import Settings, warn_about_unknown_variables
from shared.telemetry.logging_setup import configure_logging
from worker.agent_loader import load_agents
from worker.child_process import create_runner
from worker.supervision.main_process import MainProcess, watchdog_bootstep
from worker.supervision.shared_slots import SharedSlots
from worker.tasks import register_task

TASK_TIME_LIMIT_S: Final = 24 * 3600 + 900
RECONNECT_EVERY_S: Final = 1.0


class FixedIntervalConnection(Connection):
    """A connection that is tried again each second; kombu waits up to 30 s, long after Redis is back."""

    def _ensure_connection(self, errback: Any = None, max_retries: Any = None, *args: Any, **options: Any) -> Any:
        del args
        steady = {"interval_start": RECONNECT_EVERY_S, "interval_step": 0, "interval_max": RECONNECT_EVERY_S}
        return super()._ensure_connection(errback, max_retries, **(options | steady))  # type: ignore[no-untyped-call]


class NoGossipWorker(Worker):  # type: ignore[misc]
    """A worker without the chatter between workers, which may block its loop and which nothing here needs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, **options)


def celery_config_of(settings: Settings) -> dict[str, Any]:
    """Answer Celery's settings; each was paid for with a failure that was seen (ENGINE section 9)."""
    return {
        "broker_url": settings.redis_url.replace("unix://", "redis+socket://", 1),
        "broker_transport_options": {
            "ack_emulation": False,  # with it a Redis restart crashes the worker or silently stops it
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        "task_queues": [Queue(name, routing_key=name) for name in QUEUES],  # type: ignore[no-untyped-call]
        "task_default_queue": QUEUES[0],
        "task_create_missing_queues": False,
        "task_protocol": 2,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": False,
        "task_track_started": False,
        "task_send_sent_event": False,
        "task_time_limit": TASK_TIME_LIMIT_S,
        "worker_pool": "prefork",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 200,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_disable_rate_limits": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_lost_wait": 10.0,
    }


def create_app(settings: Settings) -> Celery:
    """Answer the Celery app of a worker; agents are loaded here, so that a wrong one names itself and stops it."""
    services = bootstrap(settings, "worker")
    agents = load_agents(services.catalogue)
    made = Celery("bucket", set_as_current=False)
    made.conf.update(celery_config_of(settings))
    made.amqp.Connection = FixedIntervalConnection
    made.Worker = made.subclass_with_self(NoGossipWorker, name="Worker")
    slots = SharedSlots(settings.worker_concurrency)
    runner = cache(lambda: create_runner(services, agents, slots, list(made.amqp.queues.consume_from)))
    register_task(made, runner, services.dead_letters)
    parent = MainProcess(services, slots)
    parent.connect_signals()
    made.steps["worker"].add(watchdog_bootstep(parent))
    return made


def _suppress_celery_logging(**_: Any) -> None:
    """Keep Celery's own logging set-up away, and its two lines for each message: a run's lines say more."""
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


settings = Settings.from_environ()
configure_logging("worker", settings.log_level)
signals.setup_logging.connect(_suppress_celery_logging)
warn_about_unknown_variables()
faults.arm_from(settings.faults)
app = create_app(settings)
