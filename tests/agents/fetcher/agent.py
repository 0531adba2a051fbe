"""Calls a URL by the gateway and returns what came, or with ``catch`` how the call failed."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from worker.context import AgentContext
from worker.gateway.gateway_errors import GatewayError


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    if not given:
        return {}
    facts: dict[str, Any] = {"pid": os.getpid(), "had_library": "httpx2" in sys.modules}
    if "url" not in given:
        return facts
    begun_at = time.monotonic()
    try:
        response = ctx.http.request(given.get("method", "GET"), given["url"], **given.get("options", {}))
        facts |= {"status": response.status_code, "body": response.json(), "stale": response.stale}
    except GatewayError as error:
        if not given.get("catch"):
            raise
        facts |= {"kind": error.kind}
    return facts | {"seconds": time.monotonic() - begun_at}
