"""Returns an output that a store or a schema refuses; its input says which."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext

LEVELS = 300
TOO_LARGE_BYTES = 4 * 1024 * 1024 + 1


def deep() -> dict[str, Any]:
    value = {}
    for _ in range(LEVELS):
        value = {"a": value}
    return value


OUTPUTS = {
    "nan": lambda: {"value": float("nan")},
    "bigint": lambda: {"value": 2**63},
    "surrogate": lambda: {"value": "\ud800"},
    "nul_key": lambda: {"a\0b": 1},
    "deep": deep,
    "not_object": lambda: ["no", "object"],
    "error_key": lambda: {"error": "the returner was told to"},
    "too_large": lambda: {"value": "x" * TOO_LARGE_BYTES},
    "bad_schema": lambda: {"kind": 7},
    "none": lambda: {"kind": "none"},
}


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    return OUTPUTS[given.get("kind", "none")]()
