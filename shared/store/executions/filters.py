"""Filters of MongoDB writes, with the fencing token of a lease, and ids of large outputs.

Values are strings and never operators.
"""

from __future__ import annotations

from typing import Any

from shared.domain.execution import Lease
from shared.domain.status import StepStatus


def execution_filter(integrator: str, execution_id: str) -> dict[str, Any]:
    """Build the filter of one execution that is not a tombstone."""
    return {"_id": str(execution_id), "integrator": str(integrator), "status": {"$exists": True}}


def lease_filter(lease: Lease) -> dict[str, Any]:
    """Build the filter of an execution whose step still runs under ``lease``: fencing token and claim number."""
    step = f"steps.{lease.step}"
    return {
        f"{step}.status": str(StepStatus.RUNNING),
        f"{step}.claims": lease.claim,
        f"{step}.token": lease.token,
    }


def external_output_id(execution_id: str, step: str, token: str) -> str:
    """Return the id of a large output in the collection ``outputs``; it names the claim that made it."""
    return f"{execution_id}:{step}:{token}"
