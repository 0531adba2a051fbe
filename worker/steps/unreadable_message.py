"""Stores messages that cannot be read as dead letters; no failure here ends a worker."""

from __future__ import annotations

import structlog

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.store.executions.dead_letter_store import DeadLetterStore


def dead_letter_message(dead_letters: DeadLetterStore, message: str) -> None:
    """Store an unreadable message as a dead letter; raises nothing, also if the store is away."""
    log = structlog.get_logger()
    log.warning("a message cannot be read and was dropped", message=message[:200])
    try:
        dead_letters.add_message(PUBLIC_INTEGRATOR, message)
    except Exception:
        log.exception("a message that cannot be read was not stored as a dead letter")
