"""A map: one basket over any number of inputs, with bounded memory and few requests, resumable from a state file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Unpack

from bucket_client.batches import ITEMS_MAX, Item, is_outage, item_of_body, split, submit_batch
from bucket_client.calls import Patience, encode, hinted_pause_s, warn_of
from bucket_client.effects import Emit, EmittingFlow, Flow, Sleep
from bucket_client.errors import BucketError, Forbidden, Invalid, NotFound
from bucket_client.execution import Execution
from bucket_client.map_state import FileState, MapState
from bucket_client.settings import ClientSettings
from bucket_client.submits import SubmitOptions, item_of
from bucket_client.waits import GroupPoll, Watched, pause_before_poll_s, poll_due

_READ_MAX_S: Final = 1.0
"""A source of inputs that is slow is read for so long before what it gave is submitted."""


@dataclass(frozen=True, slots=True)
class MapResult:
    """What became of one input, by its number from 0: the run that is done, or the error that refused its submit."""

    index: int
    input: Mapping[str, Any]
    execution: Execution | None
    error: BucketError | None = None


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How far this process is with a map: inputs submitted, results handed over, and those that did not complete."""

    submitted: int
    done: int
    failed: int


@dataclass(slots=True)
class _UnderWay:
    index: int
    input: Mapping[str, Any]
    watched: Watched


@dataclass(slots=True)
class _Map:
    """One map under way: ``under_way`` has at most ``concurrency`` runs, by their ids."""

    settings: ClientSettings
    state: MapState
    inputs: Iterator[tuple[int, Mapping[str, Any]]]
    item: Mapping[str, Any]
    concurrency: int
    under_way: dict[str, _UnderWay] = field(default_factory=dict)
    ready: list[MapResult] = field(default_factory=list)
    read_count: int = 0
    is_exhausted: bool = False
    is_slow: bool = False
    submitted: int = 0

    @property
    def watched(self) -> list[Watched]:
        """Return what is to be polled."""
        return [run.watched for run in self.under_way.values()]

    def has_room(self) -> bool:
        """Return whether a submit is worth its request: much fits in, or what is under way is slow."""
        free = self.concurrency - len(self.under_way)
        worth = 1 if self.is_slow or not self.under_way else min(ITEMS_MAX, (self.concurrency + 1) // 2)
        return not self.is_exhausted and free >= worth


def map_inputs(
    settings: ClientSettings,
    basket: str | Mapping[str, Any],
    inputs: Iterable[Mapping[str, Any]],
    *,
    concurrency: int = 1000,
    state: str | Path | None = None,
    on_progress: Callable[[MapProgress], None] | None = None,
    **options: Unpack[SubmitOptions],
) -> EmittingFlow[MapResult]:
    """Run ``basket`` once for each input and yield the results as the runs end, in any order.

    At most ``concurrency`` runs are under way, and memory is bounded by them. With a ``state`` file a map that was
    killed goes on where it stood if it is started again with the same basket, options and inputs within a day: it
    submits nothing twice and loses no result. A result counts as handed over when the next one is asked for; if the
    process is killed before, it comes again. An input that was refused is a result with its error. Raises NotFound and
    Forbidden, which concern all inputs, Unavailable after an outage of ten minutes, StateFileError, and ValueError or
    TypeError for wrong options.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    for name in ("idempotency_key", "request_id"):
        if options.get(name) is not None:
            raise ValueError(f"a map takes no {name}: there is one for each of its submits, made by the client")
    item = item_of(basket, options)

    def flow() -> EmittingFlow[MapResult]:
        map_state = MapState() if state is None else FileState(Path(state), encode(item))
        try:
            runs = _Map(settings, map_state, enumerate(inputs), item, concurrency)
            yield from _results(runs, on_progress)
        finally:
            map_state.close()

    return flow()


def _results(runs: _Map, on_progress: Callable[[MapProgress], None] | None) -> EmittingFlow[MapResult]:
    done = failed = 0
    while True:
        if runs.has_room():
            yield from _submit(runs)
        if not pause_before_poll_s(runs.settings, runs.watched):
            polled = yield from poll_due(runs.settings, runs.watched)
            runs.is_slow = not polled.done
            _collect(runs, polled)
        for result in runs.ready:
            done, failed = done + 1, failed + (result.execution is None or not result.execution.is_completed)
            yield Emit(result)
            runs.state.record_returned(result.index)
        if on_progress and runs.ready:
            on_progress(MapProgress(runs.submitted, done, failed))
        runs.ready.clear()
        if not runs.under_way and runs.is_exhausted:
            return
        if not runs.has_room() and (pause_s := pause_before_poll_s(runs.settings, runs.watched)):
            yield Sleep(pause_s)


def _submit(runs: _Map) -> Flow[None]:
    """Submit the next inputs, one batch at most; those whose runs are known from the state are only waited for."""
    room = min(ITEMS_MAX, runs.concurrency - len(runs.under_way))
    read_until = runs.settings.clock() + _READ_MAX_S
    fresh: list[tuple[int, Mapping[str, Any], Item]] = []
    while room > 0 and runs.settings.clock() < read_until:
        entry = next(runs.inputs, None)
        if entry is None:
            runs.is_exhausted = True
            runs.state.end_inputs(runs.read_count)
            break
        index, given = entry
        runs.read_count = index + 1
        item = _item_of_input(runs, index, given)
        encoded = item.encoded if isinstance(item.encoded, bytes) else b""
        if runs.state.read_input(index, encoded):
            continue
        room -= 1
        if isinstance(item.encoded, Invalid):
            runs.ready.append(MapResult(index, given, None, item.encoded))
        elif known_id := runs.state.submitted_id(index):
            runs.under_way[known_id] = _UnderWay(index, given, Watched(known_id))
        else:
            fresh.append((index, given, item))
    yield from _submit_fresh(runs, fresh)


def _item_of_input(runs: _Map, index: int, given: object) -> Item:
    key = f"{runs.state.token}-{index}"
    if not isinstance(given, Mapping):
        return Item(Invalid(f"an input is a JSON object, not {type(given).__name__}"), key)
    return item_of_body({**runs.item, "input_data": given, "idempotency_key": key})


def _submit_fresh(runs: _Map, fresh: list[tuple[int, Mapping[str, Any], Item]]) -> Flow[None]:
    runs.submitted += len(fresh)
    left = iter(fresh)
    for batch in split(item for _, _, item in fresh):
        outcomes = yield from submit_batch(runs.settings, batch, Patience.for_a_wait(runs.settings))
        made: dict[int, str] = {}
        outage: BucketError | None = None
        due_at = runs.settings.clock() + _longest_hint_s(outcomes)
        for outcome in outcomes:
            index, given, _ = next(left)
            if isinstance(outcome, Execution):
                made[index] = outcome.execution_id
                watched = Watched(outcome.execution_id, due_at)
                runs.under_way[outcome.execution_id] = _UnderWay(index, given, watched)
            elif is_outage(outcome) or isinstance(outcome, NotFound | Forbidden):  # it would be the same for all inputs
                outage = outage or outcome
            else:
                runs.ready.append(MapResult(index, given, None, outcome))
        if made:
            runs.state.record_submitted(made)
        if outage is not None:
            raise outage
        for outcome in outcomes:
            if isinstance(outcome, Execution):
                warn_of(outcome.raw, outcome)


def _longest_hint_s(outcomes: Iterable[Execution | BucketError]) -> float:
    """Return when a batch is first worth a poll, in seconds; all of it at once, which is fewer requests."""
    hints = [outcome.poll_after_ms for outcome in outcomes if isinstance(outcome, Execution)]
    return max((hinted_pause_s(hint, 0.0) for hint in hints), default=0.0)


def _collect(runs: _Map, polled: GroupPoll) -> None:
    """Make results of the runs that are done."""
    for execution in polled.done:
        run = runs.under_way.pop(execution.execution_id)
        runs.ready.append(MapResult(run.index, run.input, execution))
    for execution_id in polled.not_found:
        run = runs.under_way.pop(execution_id)
        error = NotFound(f"Bucket no longer keeps {execution_id}", status=404)
        runs.ready.append(MapResult(run.index, run.input, None, error))
