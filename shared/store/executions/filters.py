"""What a write must find before it counts, and the names of what is kept apart; values are strings, never operators."""

from __future__ import annotations

from typing import Any

from shared.domain.execution import Lease
from shared.domain.status import StepStatus


def execution_filter(integrator: str, execution_id: str) -> dict[str, Any]:
    """Answer the filter of one execution that is no tombstone."""
    return {"_id": str(execution_id), "integrator": str(integrator), "status": {"$exists": True}}


def lease_filter(lease: Lease) -> dict[str, Any]:
    """Answer the filter of an execution whose step still runs under ``lease``."""
    step = f"steps.{lease.step}"
    return {
        f"{step}.status": str(StepStatus.RUNNING),
        f"{step}.claims": lease.claim,
        f"{step}.token": lease.token,
    }


def external_output_id(execution_id: str, step: str, token: str) -> str:
    """Answer under which name a large output lies in ``outputs``: that of the claim that made it."""
    return f"{execution_id}:{step}:{token}"
