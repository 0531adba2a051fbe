"""The Celery application of a worker: its configuration, and the task that runs steps.

``celery --app worker.app worker`` needs no options; ``-Q`` limits a pool to some of the queues.
"""

from __future__ import annotations

import logging
import resource
import warnings
from collections.abc import Iterable
from typing import Any, Final

import celery.apps.worker
from celery import Celery, signals
from celery.apps.worker import Worker
from celery.exceptions import SecurityWarning
from celery.utils.nodenames import NODENAME_DEFAULT, default_nodename, nodename, nodesplit
from kombu.entity import Queue

from shared import fault_injection
from shared.bootstrap import bootstrap
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.basket import BULK_AGENT_NAME
from shared.queue.message import PRIORITY_STEPS
from shared.settings import Settings, warn_about_unknown_variables
from shared.telemetry.logging_setup import configure_logging
from worker.agent_loader import load_available_agents
from worker.broker import broker_connection_class, broker_settings
from worker.bulk.bulk_agent import bulk_agent
from worker.steps.runner import dead_letter_message
from worker.supervision.main_process import MainProcess, watchdog_bootstep
from worker.supervision.shared_slots import SharedSlots
from worker.tasks import register_task

TASK_TIME_LIMIT_S: Final = 24 * 3600 + 900
CHILD_GROWTH_MAX_KIB: Final = 512 * 1024
"""A child whose agents have taken so much more memory than the worker had at its start is replaced after its step."""


class BucketWorker(Worker):  # type: ignore[misc]
    """A worker without gossip, mingle and heartbeats: nothing here needs them, and they can block Celery's loop.

    It has no banner either, which would stand among the JSON lines of the log. Its name bears its queues.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"without_gossip": True, "without_mingle": True, "without_heartbeat": True, "quiet": True}
        options["hostname"] = node_name(options.get("hostname"), options.get("queues"))
        super().__init__(*args, **options)


def node_name(given: str | None, queues: str | Iterable[str] | None) -> str:
    """Return the name of a worker: its queues and its machine ("default+long@host"), or the one that it was ``given``.

    Celery's own default, ``celery@host``, is the same for the pools of both queues.
    """
    name, host = nodesplit(default_nodename(given))
    if name != NODENAME_DEFAULT:
        return f"{name}@{host}"
    names = queues.split(",") if isinstance(queues, str) else queues
    return str(nodename("+".join(names or QUEUE_NAMES), host))


def celery_config_of(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration; most settings prevent a failure that was seen (docs/engine.md, section 9)."""
    return {
        **broker_settings(settings.redis_url),
        "broker_transport_options": {
            "ack_emulation": False,  # with it a Redis restart crashes the worker or silently stops it
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_backend": None,
        "task_ignore_result": True,
        "accept_content": ["json"],
        "task_queues": [Queue(name, routing_key=name) for name in QUEUE_NAMES],  # type: ignore[no-untyped-call]
        "task_default_queue": QUEUE_NAMES[0],
        "task_create_missing_queues": False,
        "task_protocol": 2,  # shared/queue/message.py writes it
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": False,
        "task_time_limit": TASK_TIME_LIMIT_S,
        "worker_pool": "prefork",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_max_memory_per_child": _peak_memory_kib() + CHILD_GROWTH_MAX_KIB,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_disable_rate_limits": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def _peak_memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def create_app(settings: Settings) -> Celery:
    """Build the Celery app of a worker.

    Agents are loaded here, before the pool forks. One that cannot be loaded is unavailable, and no other.
    """
    services = bootstrap(settings, "worker")
    loaded = load_available_agents(services.catalogue, has_keys=services.sealer.has_keys)
    app = Celery("bucket", set_as_current=False)
    app.conf.update(celery_config_of(settings))
    app.amqp.Connection = broker_connection_class(
        settings.redis_url, lambda raw: dead_letter_message(services.dead_letters, raw.decode(errors="replace"))
    )
    app.Worker = app.subclass_with_self(BucketWorker, name="Worker")
    slots = SharedSlots(settings.worker_concurrency)
    register_task(app, services, {**loaded.agents, BULK_AGENT_NAME: bulk_agent(services)}, slots)
    main_process = MainProcess(services, slots, loaded.unavailable)
    main_process.connect_signals()
    if (tracer := services.tracer) is not None:  # in each child, whose end runs no atexit
        signals.worker_process_shutdown.connect(lambda **_: tracer.close(), weak=False)
    app.steps["worker"].add(watchdog_bootstep(main_process))
    return app


def _suppress_celery_output(**_: Any) -> None:
    """Prevent what Celery would write besides the log's JSON lines, and its two lines for each message.

    A run's own log lines say more. The plain text comes from its signal handlers, where no logger may be called.
    """
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    celery.apps.worker.safe_say = lambda *_: None


settings = Settings.from_environ()
configure_logging("worker", settings.log_level)
# About root, or a group without a name, and pickled messages, which this worker refuses.
warnings.filterwarnings("ignore", category=SecurityWarning)
signals.setup_logging.connect(_suppress_celery_output)
warn_about_unknown_variables()
fault_injection.arm_from(settings.faults)
app = create_app(settings)
