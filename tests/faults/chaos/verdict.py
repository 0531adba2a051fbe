"""Report of a chaos run: the counts that must be zero, and how long a lost step waited for its next worker."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.database import Database

from tests.faults.chaos.callers import Callers, PollHistory
from tests.faults.chaos.killer import Killer


@dataclass(slots=True)
class ChaosReport:
    """All counts of a chaos run; ``faults`` describes each violation."""

    runs: int
    final: int = 0
    completed: int = 0
    built_to_fail: int = 0
    steps: int = 0
    calls: int = 0
    effects: int = 0
    losses: int = 0
    faults: list[str] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)

    def summary(self) -> str:
        """Return the report as text."""
        waits = sorted(self.recovered_s)
        quantile = {part: waits[min(int(len(waits) * part), len(waits) - 1)] if waits else 0.0 for part in (0.5, 0.99)}
        return "\n".join(
            [
                f"{self.final} of {self.runs} final; {self.completed} completed, {self.built_to_fail} built to fail",
                (
                    f"{self.steps} steps recorded, {self.losses} workers lost under one, "
                    f"{self.calls} calls of the provider, {self.effects} effects"
                ),
                f"recovery of {len(waits)} struck steps: p50 {quantile[0.5]:.1f} s, p99 {quantile[0.99]:.1f} s",
                f"{len(self.faults)} faults" + "".join(f"\n  {fault}" for fault in self.faults[:20]),
            ]
        )


def judge(
    callers: Callers, planned: int, database: Database[dict[str, Any]], provider: Path, killer: Killer
) -> ChaosReport:
    """Return the report of a finished chaos run: compares polls, stored documents and the provider's records."""
    figures = ChaosReport(planned)
    if len(callers.histories) != planned:
        figures.faults.append(f"lost: {planned - len(callers.histories)} runs were never accepted")
    stored = {document["_id"]: document for document in database.executions.find({"status": {"$exists": True}})}
    if len(stored) != len(callers.histories):
        figures.faults.append(f"{len(stored)} runs are stored, and {len(callers.histories)} were accepted")
    expected = set()
    for execution_id, history in callers.histories.items():
        document = stored.get(execution_id)
        if document is None:
            figures.faults.append(f"{execution_id} is lost")
            continue
        _judge_run(figures, execution_id, history, document)
        figures.faults += [
            f"{execution_id} went back: {change}, {killer.before(at)}" for at, change in history.went_back
        ]
        expected |= {
            f"{execution_id}:{step}" for step, state in document["steps"].items() if state["status"] == "completed"
        }
    _judge_effects(figures, expected, provider, killer.died)
    figures.faults += [f"an answer of {status}" for status in callers.statuses if status not in {0, 200, 202, 503}]
    return figures


def _judge_run(figures: ChaosReport, execution_id: str, history: PollHistory, document: Mapping[str, Any]) -> None:
    figures.final += history.done
    figures.completed += document["status"] == "completed"
    figures.built_to_fail += history.planned.is_broken
    figures.losses += sum(step["losses"] for step in document["steps"].values())
    expected = "failed" if history.planned.is_broken else "completed"
    if (document["status"], history.last.get("status")) != (expected, expected):
        figures.faults.append(
            f"{execution_id} ({history.planned.kind}) is {document['status']}, was polled {history.last.get('status')}"
        )
    recorded = [event["step"] for event in document["events"] if event["event"] == "step.completed"]
    figures.steps += len(recorded)
    figures.faults += [f"{execution_id}: {step} twice" for step in set(recorded) if recorded.count(step) > 1]
    end_events = [
        event for event in document["events"] if event["event"] in {"execution.completed", "execution.failed"}
    ]
    if len(end_events) != 1:
        figures.faults.append(f"{execution_id} ended {len(end_events)} times")
    if expected == "completed" and sorted(recorded) != sorted(history.planned.steps):
        figures.faults.append(f"{execution_id} recorded {recorded}")


def _judge_effects(figures: ChaosReport, expected: set[str], provider: Path, died: Mapping[int, float]) -> None:
    effects = {path.name.removesuffix(".effect") for path in provider.glob("*.effect")}
    figures.effects = len(effects)
    figures.faults += [f"an effect of {key}, which is not recorded" for key in sorted(effects - expected)]
    figures.faults += [f"no effect of {key}, which is recorded" for key in sorted(expected - effects)]
    for path in provider.iterdir():
        if path.suffix == ".effect":
            continue
        calls = [line.split() for line in path.read_text().splitlines() if line.startswith("call ")]
        figures.calls += len(calls)
        for (_, _, pid, at), (_, _, _, following) in itertools.pairwise(calls):
            died_at = died.get(int(pid), 0.0)
            if float(at) <= died_at <= float(following):
                figures.recovered_s.append(float(following) - died_at)
