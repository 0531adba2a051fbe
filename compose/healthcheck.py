"""Health check of a container: ``python -m compose.healthcheck api`` (or ``worker``) exits with 0 if it is healthy."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

_TIMEOUT_S: Final = 4.0


def is_api_ready() -> bool:
    """Return whether the API on this machine reports that it is ready (readiness check)."""
    import urllib.request  # here, because the worker's check is quicker without it

    url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_TIMEOUT_S) as response:
        return bool(response.status == 200)  # noqa: PLR2004 - as HTTP has it


def is_worker_present() -> bool:
    """Return whether a worker on this machine has renewed its presence in Redis (liveness check)."""
    # redis-py, which the API's check does not need; nothing else of Bucket, because probes run often.
    from shared.live.presence.worker_presence import present_workers
    from shared.live.redis_client import connect

    with closing(connect(os.environ["REDIS_URL"], timeout_s=_TIMEOUT_S)) as client:
        return any(name.startswith(f"{socket.gethostname()}:") for name in present_workers(client))


CHECKS: Final[Mapping[str, Callable[[], bool]]] = {"api": is_api_ready, "worker": is_worker_present}


def main() -> None:
    """Run the check named on the command line; print an error in it as one line."""
    try:
        is_healthy = CHECKS[sys.argv[1]]()
    except Exception as error:  # noqa: BLE001 - any error means not healthy
        sys.exit(f"not healthy: {error}")
    sys.exit(0 if is_healthy else f"not healthy: {sys.argv[1]}")


if __name__ == "__main__":
    main()
