"""A map: one basket over any number of inputs, with bounded memory and few requests, resumable from a state file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Unpack

from bucket_client.batches import ITEMS_MAX, split, submit_batch
from bucket_client.calls import Patience, encode
from bucket_client.effects import Emit, EmittingFlow, Flow, Sleep
from bucket_client.errors import BucketError, Invalid, NotFound
from bucket_client.execution import Execution
from bucket_client.map_state import FileState, MapState
from bucket_client.settings import ClientSettings
from bucket_client.submits import SubmitOptions, check_names, item_of
from bucket_client.waits import Watched, poll_group

_REFUSED_FOR_NOW: Final = 503


@dataclass(frozen=True, slots=True)
class MapResult:
    """What became of one input, by its number from 0: the run that is done, or the error that refused its submit."""

    index: int
    input: Mapping[str, Any]
    execution: Execution | None
    error: BucketError | None = None


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How far a map is: of the inputs read so far, those submitted, done, and of those the ones not completed."""

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
    """One map under way: ``under_way`` has at most ``concurrency`` runs, the oldest first."""

    settings: ClientSettings
    state: MapState
    inputs: Iterator[tuple[int, Mapping[str, Any]]]
    options: SubmitOptions
    basket: str | Mapping[str, Any]
    concurrency: int
    under_way: dict[str, _UnderWay] = field(default_factory=dict)
    ready: list[MapResult] = field(default_factory=list)
    is_exhausted: bool = False
    submitted: int = 0

    def has_room(self) -> bool:
        """Return whether a submit is worth its request: half of a batch or of the concurrency fits in."""
        free = self.concurrency - len(self.under_way)
        return not self.is_exhausted and (free >= min(ITEMS_MAX, (self.concurrency + 1) // 2) or not self.under_way)


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
    killed goes on where it stood if it is started again with the same inputs within a day: it submits nothing twice and
    loses no result. A result counts as handed over when the next one is asked for; if the process is killed before, it
    comes again. A submit that was refused is a result with its error. Raises Unavailable after an outage of ten
    minutes, and StateFileError.
    """
    check_names(options)
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    if options.get("idempotency_key") is not None:
        raise ValueError("a map makes the idempotency keys itself; with a state file they stay the same")
    target = basket if isinstance(basket, str) else "a basket of its own"
    map_state = MapState() if state is None else FileState(Path(state), target)
    runs = _Map(settings, map_state, enumerate(inputs), options, basket, concurrency)
    done = failed = 0
    try:
        while True:
            while runs.has_room():
                yield from _submit(runs)
            pause_s = yield from _collect(runs)
            for result in runs.ready:
                done, failed = done + 1, failed + (result.execution is None or not result.execution.is_completed)
                yield Emit(result)
                map_state.record_returned(result.index)
            runs.ready.clear()
            if on_progress:
                on_progress(MapProgress(runs.submitted, done, failed))
            if not runs.under_way and runs.is_exhausted:
                return
            if not runs.has_room():
                yield Sleep(pause_s)
    finally:
        map_state.close()


def _submit(runs: _Map) -> Flow[None]:
    """Submit the next inputs, one batch at most; those whose runs are known from the state are only waited for."""
    fresh: list[tuple[int, Mapping[str, Any], bytes]] = []
    room = min(ITEMS_MAX, runs.concurrency - len(runs.under_way))
    while room > 0:
        index, given = next(runs.inputs, (None, None))
        if index is None or given is None:
            runs.is_exhausted = True
            break
        if runs.state.is_returned(index):
            continue
        room -= 1
        try:
            encoded = encode(given)
        except Invalid as error:
            runs.ready.append(MapResult(index, given, None, error))
            continue
        runs.submitted += 1
        if known_id := runs.state.submitted_id(index, encoded):
            runs.under_way[known_id] = _UnderWay(index, given, Watched(known_id))
        else:
            fresh.append((index, given, encoded))
    yield from _submit_fresh(runs, fresh)


def _submit_fresh(runs: _Map, fresh: list[tuple[int, Mapping[str, Any], bytes]]) -> Flow[None]:
    items = (
        item_of(runs.basket, given, {**runs.options, "idempotency_key": f"{runs.state.token}-{index}"})
        for index, given, _ in fresh
    )
    left = iter(fresh)
    for batch in split(items):
        outcomes = yield from submit_batch(runs.settings, batch, Patience.for_a_wait(runs.settings))
        made: dict[int, tuple[str, bytes]] = {}
        for outcome in outcomes:
            index, given, encoded = next(left)
            if isinstance(outcome, Execution):
                made[index] = (outcome.execution_id, encoded)
                runs.under_way[outcome.execution_id] = _UnderWay(index, given, Watched(outcome.execution_id))
            elif outcome.status == _REFUSED_FOR_NOW:
                raise outcome
            else:
                runs.ready.append(MapResult(index, given, None, outcome))
        runs.state.record_submitted(made)


def _collect(runs: _Map) -> Flow[float]:
    """Poll the oldest runs; what is done becomes ready. Returns the pause before the next poll, in seconds."""
    oldest = [run.watched for run, _ in zip(runs.under_way.values(), range(ITEMS_MAX), strict=False)]
    if not oldest:
        return 0.0
    polled = yield from poll_group(runs.settings, oldest)
    for execution in polled.done:
        run = runs.under_way.pop(execution.execution_id)
        runs.ready.append(MapResult(run.index, run.input, execution))
    for execution_id in polled.not_found:
        run = runs.under_way.pop(execution_id)
        error = NotFound(f"Bucket no longer keeps {execution_id}", status=404)
        runs.ready.append(MapResult(run.index, run.input, None, error))
    return polled.pause_s
