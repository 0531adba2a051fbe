"""A container's health check: ``python -m compose.healthcheck api`` or ``worker`` ends with 0 if all is well."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

_TIMEOUT_S: Final = 4.0


def is_api_ready() -> bool:
    """Answer whether this machine's API says that it is ready."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_TIMEOUT_S) as answer:
        return bool(answer.status == 200)  # noqa: PLR2004 - as HTTP has it


def is_worker_present() -> bool:
    """Answer whether a worker on this machine has renewed its mark in Redis lately."""
    from shared.live.redis_client import connect  # redis-py, which the API's check has no need to load

    with closing(connect(os.environ["REDIS_URL"], timeout_s=_TIMEOUT_S)) as client:
        now_s = client.time()[0]
        marks: Any = client.zrangebyscore("workers", f"({now_s}", "+inf")
    here = f"{socket.gethostname()}:".encode()
    return any(bytes(mark).startswith(here) for mark in marks)


CHECKS: Final[Mapping[str, Callable[[], bool]]] = {"api": is_api_ready, "worker": is_worker_present}


def main() -> None:
    """Run the named check; what goes wrong in it is said in one line."""
    try:
        well = CHECKS[sys.argv[1]]()
    except Exception as failed:  # noqa: BLE001 - whatever it is, this is not healthy
        sys.exit(f"not healthy: {failed}")
    sys.exit(0 if well else f"not healthy: {sys.argv[1]}")


if __name__ == "__main__":
    main()
