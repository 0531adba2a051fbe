"""Erases the content of a finished run in both stores; its record stays."""

from __future__ import annotations

from collections.abc import Callable

import redis

from shared.bootstrap import Services
from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.erasure import erase
from shared.errors import InternalError, OutcomeUnknown, StaleWrite, Unavailable
from shared.live.erased_runs import erase_copies
from shared.live.render import render


def erase_run(services: Services, run: Execution, read: Callable[[], ExecutionRecord]) -> ExecutionRecord:
    """Erase a run in both stores, each part again if the run was erased before; return its record.

    So a repeat completes what a store that went away has left. ``read`` reads the run's record, causally. Raises
    NotFinal, Unavailable if nothing was changed, and OutcomeUnknown if not all was done.
    """
    erased = erase(run, services.clock.now())
    try:
        record = None if erased is None else services.erasures.empty(run, erased)
    except StaleWrite:  # the same request came twice: a finished run is written by nothing else
        record = None
    if record is None:
        record = read()
        if record.execution.erased_at is None:
            raise Unavailable
    view = render(record)
    if view is None:
        raise InternalError(f"an output of {run.id} is there after its erasure")
    try:
        services.erasures.delete_beside(record.execution)
        erase_copies(services.redis, services.views, record.execution, view)
    except (Unavailable, redis.RedisError) as error:  # not Unavailable: something was changed, and the audit says so
        raise OutcomeUnknown(
            f"execution {run.id} is erased, but a store went away that may still have copies of its content; "
            "send the same request again"
        ) from error
    return record
