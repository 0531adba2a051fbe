"""Counts the operations of a run on the real stack: messages, MongoDB writes and reads, Redis commands; no timings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness.http_dialects import TRANSACTIONS
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.mongod_profiler import ProfileEntry, is_write, recording
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded import bucket_process_plans

_INPUT: Final = {"transactions": TRANSACTIONS}
WORKLOADS: Final[Mapping[str, Mapping[str, Any]]] = {
    "two quick steps": {"basket_name": "chained_test", "input_data": _INPUT},
    "chain of 5": {"config": {"agents": ["cashflow_analyzer"] * 5}, "input_data": _INPUT},
    "chain of 10": {"config": {"agents": ["cashflow_analyzer"] * 10}, "input_data": _INPUT},
    "two steps of 0.15 s": {"config": {"agents": ["napper"] * 2}, "input_data": _INPUT},
}
_FINAL: Final = ("completed", "failed", "cancelled")
_DONE_WITHIN_S: Final = 20.0
_SETTLE_S: Final = 0.3
_NOISE: Final = 0.2
_AWAKE_EVERY_S: Final = 0.02
_AWAKE_AFTER_S: Final = 0.5
# These depend on the clock or on connections, not on runs.
_EXCLUDED_COLLECTIONS: Final = frozenset({"leases"})
_EXCLUDED_COMMANDS: Final = frozenset({"client", "hello", "info"})


@dataclass(frozen=True, slots=True)
class OperationCounts:
    """The average operations of one run; writes and reads by the process that makes them."""

    messages: float
    writes: Mapping[str, float]
    reads: Mapping[str, float]
    redis: Mapping[str, float]


def count_per_run(
    side: SystemUnderTest, body: Mapping[str, Any], runs: int, idle: Mapping[str, float]
) -> OperationCounts:
    """Submit ``body`` ``runs`` times, one after the other, and count; ``idle`` are Redis commands a second at rest."""
    database = side.mongo.get_default_database()
    before, began = redis_command_counts(side), time.monotonic()
    with recording(database) as entries:
        for _ in range(runs):
            _run_to_end(side, body)
        time.sleep(_SETTLE_S)
    seconds = time.monotonic() - began
    per_run = {
        name: (total - before[name] - idle.get(name, 0) * seconds) / runs
        for name, total in redis_command_counts(side).items()
    }
    bucket_entries = [entry for entry in entries if _is_bucket(entry)]
    return OperationCounts(
        messages=(redis_command_counts(side)["lpush"] - before["lpush"]) / runs,
        writes=_by_process([entry for entry in bucket_entries if is_write(entry)], runs),
        reads=_by_process(
            [entry for entry in bucket_entries if not is_write(entry) and not _is_overdue_search(entry)], runs
        ),
        redis={name: each for name, each in per_run.items() if each > _NOISE and name not in _EXCLUDED_COMMANDS},
    )


def count_per_poll(side: SystemUnderTest, body: Mapping[str, Any], polls: int) -> tuple[float, Mapping[str, float]]:
    """Return the MongoDB operations and the Redis commands of one poll of a finished run."""
    run_id = _run_to_end(side, body)
    with recording(side.mongo.get_default_database()) as entries:
        before = redis_command_counts(side)
        for _ in range(polls):
            bucket_process_plans.fetch_json(f"{side.url}/execution-logs/{run_id}")
        per_poll = {name: (total - before[name]) / polls for name, total in redis_command_counts(side).items()}
    api_entries = [entry for entry in entries if "bucket-api" in str(entry.get("appName"))]
    return len(api_entries) / polls, {
        name: per_poll[name] for name in ("get", "set", "eval", "evalsha") if per_poll.get(name, 0) > _NOISE
    }


def idle_commands(side: SystemUnderTest, seconds: float) -> dict[str, float]:
    """Return the Redis commands a second, by name, while no run is there, and the API looks at Redis as under load."""
    _keep_awake(side, _AWAKE_AFTER_S)
    before, began = redis_command_counts(side), time.monotonic()
    _keep_awake(side, seconds)
    seconds = time.monotonic() - began
    return {name: (total - before[name]) / seconds for name, total in redis_command_counts(side).items()}


def _keep_awake(side: SystemUnderTest, seconds: float) -> None:
    """Send requests that need no Redis to all processes of the API, which otherwise rest."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        bucket_process_plans.fetch_json(f"{side.url}/ready")
        time.sleep(_AWAKE_EVERY_S)


def redis_command_counts(side: SystemUnderTest) -> Counter[str]:
    """Return how often Redis has executed each command, including those inside scripts."""
    stats: Mapping[str, Mapping[str, int]] = side.redis.info("commandstats")  # type: ignore[assignment]
    return Counter({name.removeprefix("cmdstat_"): command["calls"] for name, command in stats.items()})


def _run_to_end(side: SystemUnderTest, body: Mapping[str, Any]) -> str:
    run_id = str(bucket_process_plans.fetch_json(f"{side.url}{side.dialect.submit_path}", body)["execution_id"])
    runs = side.mongo.get_default_database()[side.dialect.collection]
    due_by = time.monotonic() + _DONE_WITHIN_S
    while True:
        document = runs.find_one({"_id": run_id}, {"status": 1, "error": 1}) or {}
        if document.get("status") in _FINAL:
            break
        if time.monotonic() > due_by:
            raise BenchmarkError(f"{run_id} was not done within {_DONE_WITHIN_S:g} s: {document}")
        time.sleep(0.005)
    if document["status"] != "completed":
        raise BenchmarkError(f"{run_id} did not complete: {document}")
    return run_id


def _is_bucket(entry: ProfileEntry) -> bool:
    return (
        str(entry.get("appName")).startswith("bucket-") and entry["ns"].partition(".")[2] not in _EXCLUDED_COLLECTIONS
    )


def _is_overdue_search(entry: ProfileEntry) -> bool:
    """Return whether it is the reconciler's search for overdue runs, which comes every second, also at rest."""
    return str(entry["appName"]) == "bucket-reconciler"


def _by_process(entries: Sequence[ProfileEntry], runs: int) -> dict[str, float]:
    counts = Counter(str(entry["appName"]).removeprefix("bucket-") for entry in entries)
    return {process: total / runs for process, total in sorted(counts.items())}
