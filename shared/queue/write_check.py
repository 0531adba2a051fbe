"""The write check: whether Redis would take a task message now; a replica or a full one would not."""

from __future__ import annotations

from typing import Any, Final

_KEY: Final = "write-check"
_TTL_MS: Final = 10_000


def check_writable(client: Any) -> None:
    """Write a key that lives for some seconds; raises RedisError if that is refused (READONLY, OOM, NOPERM, MISCONF).

    ``client`` may be a pipeline, which sends it later.
    """
    client.execute_command("SET", _KEY, "", "PX", _TTL_MS)
