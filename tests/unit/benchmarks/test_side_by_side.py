"""Each round of the side-by-side benchmark has processes of its own, and begins with another side."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks import side_by_side
from benchmarks.harness.http_dialects import BUCKET, REFERENCE, HttpDialect
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.measurements import Figures
from benchmarks.side_by_side import QUICK, SystemsBenchmark

Events = list[tuple[str, str, int]]


class FakeSide:
    """Records when it is started and closed; ``life`` counts the systems of its name."""

    def __init__(self, events: Events, name: str, dialect: HttpDialect, life: int) -> None:
        self.name, self.dialect, self.life = name, dialect, life
        self._events = events

    def record(self, event: str) -> None:
        self._events.append((event, self.name, self.life))

    def start(self) -> None:
        self.record("start")

    def close(self) -> None:
        self.record("close")


class FakeMeasurements:
    """Stands for the module of measurements: each has one figure, the life of the measured side."""

    def __getattr__(self, measure: str) -> object:
        def take(side: FakeSide, *_: object, **__: object) -> Figures:
            side.record(measure)
            return {measure: side.life}

        return take

    def measure_idle(self, sides: Sequence[FakeSide], _: float) -> list[Figures]:
        return [{"rest": side.life} for side in sides]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr(side_by_side, "measurements", FakeMeasurements())
    return []


def a_benchmark(events: Events) -> SystemsBenchmark:
    def factory(name: str, dialect: HttpDialect) -> side_by_side.SideFactory:
        return lambda _: FakeSide(events, name, dialect, life=sum(event[:2] == ("start", name) for event in events))

    return SystemsBenchmark(
        {"reference": factory("reference", REFERENCE), "this build": factory("this build", BUCKET)}, QUICK
    )


def test_each_round_starts_all_sides_anew_and_closes_them(events: Events) -> None:
    bench = a_benchmark(events)
    bench.run()
    for name in ("reference", "this build"):
        lives = [life for event, side, life in events if side == name and event in {"start", "close"}]
        assert lives == [0, 0, 1, 1]
        assert [set(figures.values()) for figures in bench.figures[name]] == [{0}, {1}]


@pytest.mark.parametrize("measure", ["start", "burst", "lone_caller", "measure_memory"])
def test_the_side_that_begins_changes_with_each_round(events: Events, measure: str) -> None:
    a_benchmark(events).run()
    order = [side for event, side, _ in events if event == measure]
    assert order == ["reference", "this build", "this build", "reference"]


def test_only_a_side_with_held_submits_is_measured_with_them(events: Events) -> None:
    a_benchmark(events).run()
    assert {side for event, side, _ in events if event == "one_call"} == {"this build"}


def test_a_fault_in_a_round_closes_what_was_started(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[Figures]:
        raise BenchmarkError

    monkeypatch.setattr(side_by_side.measurements, "measure_idle", fail)
    with pytest.raises(BenchmarkError):
        a_benchmark(events).run()
    assert [side for event, side, _ in events if event == "close"] == ["this build", "reference"]
