"""A failed attempt of a step as its agent's author needs it, with the traceback; callers never see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """One attempt in which the agent raised, or was interrupted at its time limit."""

    integrator: str
    execution_id: str
    step: str
    agent: str
    attempt: int
    at: datetime
    error_code: str
    traceback: str
