"""The rows of the operation table for health, workers and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from api.openapi.json_schema import ref
from api.openapi.operation import PRIVATE, STORE_ERRORS, Operation, ok

FLEET_OPERATIONS: Final[Mapping[str, Operation]] = {
    "GET /workers": Operation(
        ok("The workers and reconcilers, each sorted by id.", ref("FleetList"), *PRIVATE),
        ("OfIntegrator",),
        STORE_ERRORS,
    ),
    "GET /executions/stats": Operation(
        ok("The figures.", ref("ExecutionStats"), *PRIVATE),
        ("Queue", "SlotsPerWorker", "Series", "OfIntegrator"),
        STORE_ERRORS,
    ),
    "GET /health": Operation(ok("The state of each part.", ref("Health"), "Cache-None")),
    "GET /ready": Operation(ok("Runs are accepted.", ref("Ready"), "Cache-None"), (), STORE_ERRORS),
}
