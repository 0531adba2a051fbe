"""Unavailability of an agent: why a process cannot run it, in words that a client may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import AgentUnavailable

REASON_MAX_CHARS: Final = 500
AGENT_RETRY_AFTER_S: Final = 30
"""A person must put the agent in order, so a quick repeat is of no use."""


NO_KEYS_REASON: Final = "it marks fields that must be stored encrypted, and BUCKET_ENCRYPTION_KEYS is not set"


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why an agent cannot run; ``lacks_settings`` if nothing else is wrong than that a required setting is missing."""

    reason: str
    lacks_settings: bool = False


def agent_unavailable(reasons: Mapping[str, str]) -> AgentUnavailable:
    """Return the error of a request that needs unavailable agents; ``reasons`` are by their names."""
    faults = [f"agent {name!r} is unavailable: {reason}" for name, reason in reasons.items()]
    return AgentUnavailable(
        f"{'; '.join(faults[:3])}; nothing was stored, send the same request again once that is mended",
        details=[{"message": fault} for fault in faults],
        retry_after_s=AGENT_RETRY_AFTER_S,
    )
