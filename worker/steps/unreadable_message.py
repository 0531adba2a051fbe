"""Keeps what came as a message and is no bell among the dead letters; nothing that goes wrong here ends a worker."""

from __future__ import annotations

import structlog

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.store.executions.dead_letter_store import DeadLetterStore


def dead_letter_message(dead_letters: DeadLetterStore, message: str) -> None:
    """Keep a message that nobody can answer, as far as the store answers; raises nothing."""
    log = structlog.get_logger()
    log.warning("a message is no bell and was dropped", message=message[:200])
    try:
        dead_letters.add_message(PUBLIC_INTEGRATOR, message)
    except Exception:
        log.exception("a message that could not be read was not kept")
