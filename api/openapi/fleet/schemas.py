"""JSON schemas of health, workers and statistics."""

from __future__ import annotations

from typing import Final

from api.fleet.health_parts import Criticality, PartStatus
from api.openapi.json_schema import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    STRING,
    TIMESTAMP,
    JsonObject,
    array_of,
    constant,
    described,
    enum_of,
    nullable,
    object_of,
    ref,
)
from api.openapi.response_schemas import AGENT, EXECUTION_ID, STEP
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.status import ExecutionStatus
from shared.telemetry.window_counters import FINAL_STATUSES, SUBMITTED, WINDOWS

_WORDS: Final = ("mongodb", "redis", "workers")
_PARTS: Final = (*_WORDS, *(f"queue_{queue}" for queue in QUEUE_NAMES), "reconciler", "feed", "breakers")
_QUEUE: Final = enum_of(*QUEUE_NAMES)
_MS: Final = nullable(COUNT)

_COUNTS: Final[dict[str, JsonObject]] = {
    **dict.fromkeys((SUBMITTED, *FINAL_STATUSES), COUNT),
    "duration_ms": object_of(
        "Percentiles of the time from the first claim to the end, within 5 %; null if no run ended.",
        p50=_MS,
        p95=_MS,
        p99=_MS,
    ),
}


def _map_of(values: JsonObject, description: str) -> JsonObject:
    return {"type": "object", "description": description, "additionalProperties": values}


FLEET_SCHEMAS: Final[dict[str, JsonObject]] = {
    "HealthPart": object_of(
        "One part of the system.",
        status=described(enum_of(*PartStatus), "unknown if what knows it is away"),
        criticality=described(
            enum_of(*Criticality),
            "what the whole becomes if this part is not healthy: unhealthy if it is critical, else degraded",
        ),
        detail=described(STRING, "a sentence for people; if the part is not healthy, it says what to do"),
    ),
    "Health": object_of(
        status=enum_of(PartStatus.HEALTHY, PartStatus.DEGRADED, PartStatus.UNHEALTHY),
        reasons=described(array_of(STRING), "the detail of each part that is not healthy"),
        services=object_of(
            "The parts, of which three are a word, as in earlier releases.",
            **{name: enum_of("connected", "disconnected") if name in _WORDS else ref("HealthPart") for name in _PARTS},
        ),
        parts=object_of("All parts.", **dict.fromkeys(_PARTS, ref("HealthPart"))),
        dependencies=array_of(object_of(name=STRING, state=enum_of("closed", "half-open", "open"), critical=BOOLEAN)),
        version=STRING,
    ),
    "Ready": object_of(status=constant("ready")),
    "FleetList": object_of(workers=array_of(ref("Worker")), reconcilers=array_of(ref("Reconciler"))),
    "Worker": object_of(
        "A worker that is present; what one of an older release does not say is null.",
        id=STRING,
        host=STRING,
        pid=nullable(POSITIVE),
        version=nullable(STRING),
        queues=described(nullable(array_of(_QUEUE)), "null if it may take messages of any queue"),
        slots=described(nullable(COUNT), "how many steps it runs at once"),
        slots_busy=nullable(COUNT),
        running=described(
            array_of(object_of(execution_id=EXECUTION_ID, step=STEP, agent=AGENT, since=TIMESTAMP)),
            "the steps that it runs, as far as the caller may see the executions",
        ),
        started_at=nullable(TIMESTAMP),
        heartbeat_at=nullable(TIMESTAMP),
    ),
    "Reconciler": object_of("A reconciler that is present.", id=STRING, leading=BOOLEAN, heartbeat_at=TIMESTAMP),
    "ExecutionStats": object_of(
        "The figures.",
        ("series",),
        by_status=object_of(
            "Those that are not done now, and of the final ones those of the last 24 hours.",
            **dict.fromkeys(map(str, ExecutionStatus), COUNT),
        ),
        queues=object_of("By queue.", QUEUE_NAMES, **dict.fromkeys(QUEUE_NAMES, ref("QueueStats"))),
        baskets=_map_of(object_of(queued=COUNT, running=COUNT), "executions that are not done, by basket"),
        windows=object_of("By window of time.", **dict.fromkeys(WINDOWS, ref("WindowStats"))),
        series=described(
            array_of(ref("SlotStats"), maxItems=max(before for _, before in WINDOWS.values()) + 1),
            "only with the parameter series: the slots of that window, the oldest first; the last one is not over",
        ),
    ),
    "SlotStats": object_of(
        "What happened in a minute or a quarter of an hour.",
        at=described(TIMESTAMP, "when it began"),
        **_COUNTS,
    ),
    "QueueStats": object_of(
        "What waits and runs in one queue.",
        queued=described(COUNT, "steps that are offered and wait for a slot"),
        running=described(COUNT, "steps that run"),
        workers=described(COUNT, "workers that take messages of this queue"),
        slots=described(COUNT, "how many steps these can run at once"),
        oldest_age_s=described(
            nullable({"type": "number", "minimum": 0}), "for how long the oldest waits; null if none does"
        ),
        wanted_workers=described(COUNT, "how many workers would run all that waits or runs at once"),
    ),
    "WindowStats": object_of(
        "What happened in a window of time.",
        **_COUNTS,
        failures=_map_of(COUNT, "failed executions by error_code"),
    ),
}
