"""The write check: whether Redis would take a task message now; a replica or a full one would not."""

from __future__ import annotations

from typing import Any, Final

from shared.domain.definitions.agent_spec import QUEUE_NAMES

_KEY: Final = "write-check"
_TTL_MS: Final = 10_000


def check_writable(client: Any) -> None:
    """Write a key that lives for some seconds; raises RedisError if that is refused (READONLY, OOM, NOPERM, MISCONF).

    Then name two keys at once: in cluster mode that is refused, as Celery's commands would be. ``client`` may be a
    pipeline, which sends both commands later and replies to both.
    """
    client.execute_command("SET", _KEY, "", "PX", _TTL_MS)
    client.execute_command("EXISTS", _KEY, QUEUE_NAMES[0])
