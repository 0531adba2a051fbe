"""Waits: poll a run, or many, until they are done, as often as the server's hints say and no more often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Unpack

from bucket_client.batches import ITEMS_MAX
from bucket_client.calls import PAUSE_MIN_S, Patience, call, call_json, encode, hinted_pause_s, segment, warn_of
from bucket_client.effects import Flow, Reply, Request, Sleep
from bucket_client.errors import NotFound, ServerFault, Timeout
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings
from bucket_client.submits import SubmitOptions, execution_of, run_request, submit

HOLD_S: Final = 20.0
"""For how long the server is asked to hold a poll; it grants at most 30 s."""
_NOT_MODIFIED: Final = 304

OnProgress = Callable[[Execution], None]


def poll(settings: ClientSettings, execution_id: str) -> Flow[Execution]:
    """Poll a run once and return it as it stands. Raises NotFound for an id that Bucket does not know."""
    reply = yield from call(settings, Request("GET", f"/executions/{segment(execution_id)}"))
    return execution_of(reply)


def wait(
    settings: ClientSettings,
    execution_id: str,
    on_progress: OnProgress | None = None,
    *,
    timeout: float | None = None,
    check: bool = True,
) -> Flow[Execution]:
    """Wait until a run is done and return it.

    ``on_progress`` is called with the run each time it has changed. Restarts of the server are outlived. Raises Timeout
    after ``timeout`` seconds (the run goes on), and with ``check`` ExecutionFailed or ExecutionCancelled.
    """
    due_by = due_by_of(settings, timeout)
    done = yield from _wait_from(settings, execution_id, on_progress, due_by)
    return done.raise_for_status() if check else done


def run_and_wait(
    settings: ClientSettings,
    basket: str | Mapping[str, Any],
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
    check: bool = True,
    **options: Unpack[SubmitOptions],
) -> Flow[Execution]:
    """Submit a run, wait until it is done, and return it: in one request if it is quick.

    Arguments are those of ``run`` and ``wait``, and so are the errors.
    """
    due_by = due_by_of(settings, timeout)
    request = run_request(basket, input, **options)
    patience = None if due_by is None else Patience.for_a_wait(settings, due_by)
    reply = yield from submit(settings, _held(request, 0.0 if on_progress else _hold_s(settings, due_by)), patience)
    seen = execution_of(reply)
    if on_progress:
        on_progress(seen)
    if not seen.done and "preference-applied" not in reply.headers:
        yield from _sleep_within(settings, hinted_pause_s(seen.poll_after_ms), due_by)
    if not seen.done or "steps" not in seen.raw:  # a repeat of a submit may find a run that is done
        warnings = seen.raw
        seen = yield from _wait_from(settings, seen.execution_id, on_progress, due_by, seen)
        warn_of(warnings, seen)
    else:
        warn_of(seen.raw, seen)
    return seen.raise_for_status() if check else seen


def _wait_from(
    settings: ClientSettings,
    execution_id: str,
    on_progress: OnProgress | None,
    due_by: float | None,
    seen: Execution | None = None,
) -> Flow[Execution]:
    """Poll a run until it is done; ``seen`` is what is known of it."""
    path = f"/executions/{segment(execution_id)}"
    etag: str | None = None
    try:
        while True:
            params = {"until": "done"} if on_progress is None else {}
            request = Request("GET", path, params, headers={"If-None-Match": etag} if etag else {})
            reply = yield from call(
                settings, _held(request, _hold_s(settings, due_by)), Patience.for_a_wait(settings, due_by)
            )
            if reply.status != _NOT_MODIFIED:
                seen, etag = execution_of(reply), reply.headers.get("etag")
                if on_progress:
                    on_progress(seen)
                if seen.done:
                    return seen
            _check_time(settings, due_by, execution_id)
            was_held = "preference-applied" in reply.headers
            yield from _sleep_within(settings, PAUSE_MIN_S if was_held else _pause_of(reply, seen), due_by)
    except Timeout as late:
        late.execution = seen
        raise


@dataclass(slots=True)
class Watched:
    """One run among many that are waited for: the revision that was last seen, and when to poll it again."""

    execution_id: str
    due_at: float = -math.inf
    rev: int | None = None


def wait_many(
    settings: ClientSettings,
    execution_ids: Iterable[str],
    on_progress: OnProgress | None = None,
    *,
    timeout: float | None = None,
) -> Flow[list[Execution]]:
    """Wait until all of these runs are done and return them, in the order of their ids, however they ended.

    ``on_progress`` is called with each run that is done. Raises NotFound for ids that are not known, and Timeout, whose
    ``executions`` are those that are done.
    """
    order = _ids(execution_ids)
    due_by = due_by_of(settings, timeout)
    left = {execution_id: Watched(execution_id) for execution_id in order}
    done: dict[str, Execution] = {}
    try:
        while left:
            yield from _sleep_within(settings, pause_before_poll_s(settings, left.values()), due_by)
            polled = yield from poll_due(settings, left.values(), due_by)
            refuse_unknown(polled.not_found)
            for execution in polled.done:
                done[execution.execution_id] = execution
                del left[execution.execution_id]
                if on_progress:
                    on_progress(execution)
            _check_time(settings, due_by, f"{len(left)} of {len(order)} runs", is_over=not left)
    except Timeout as late:
        late.executions = [done[execution_id] for execution_id in order if execution_id in done]
        raise
    return [done[execution_id] for execution_id in order]


def poll_many(settings: ClientSettings, execution_ids: Iterable[str]) -> Flow[list[Execution]]:
    """Poll many runs once and return them with results and logs, in the order of their ids. Raises NotFound."""
    order = _ids(execution_ids)
    views: dict[str, Execution] = {}
    unique = list(dict.fromkeys(order))
    for start in range(0, len(unique), ITEMS_MAX):
        found, not_found = yield from _fetch(
            settings, unique[start : start + ITEMS_MAX], Patience.for_one_call(settings)
        )
        refuse_unknown(not_found)
        views |= {execution.execution_id: execution for execution in found}
    return [views[execution_id] for execution_id in order]


@dataclass(frozen=True, slots=True)
class GroupPoll:
    """What a poll of a group brought: the runs that are done, whole, and the ids that are not known."""

    done: list[Execution]
    not_found: list[str]


def pause_before_poll_s(settings: ClientSettings, watched: Iterable[Watched]) -> float:
    """Return the pause until the first of these runs is to be polled, in seconds."""
    return max(0.0, min((run.due_at for run in watched), default=-math.inf) - settings.clock())


def poll_due(settings: ClientSettings, watched: Iterable[Watched], due_by: float | None = None) -> Flow[GroupPoll]:
    """Poll at most 500 runs whose time has come, by their revisions, and fetch those that are done with their results.

    The others are due again when the reply says; those that were due for longest come first.
    """
    now = settings.clock()
    due = sorted((run for run in watched if run.due_at <= now), key=lambda run: run.due_at)[:ITEMS_MAX]
    if not due:
        return GroupPoll([], [])
    patience = Patience.for_a_wait(settings, due_by)
    items = [{"execution_id": run.execution_id, "rev": run.rev} for run in due]
    reply = yield from _post_poll(settings, {"items": items}, patience)
    revs = {view["execution_id"]: view["rev"] for view in reply["changed"] if not view["done"]}
    due_at = settings.clock() + hinted_pause_s(reply["poll_after_ms"])
    for run in due:
        run.rev, run.due_at = revs.get(run.execution_id, run.rev), due_at
    done_ids = [view["execution_id"] for view in reply["changed"] if view["done"]]
    done, not_found = yield from _fetch(settings, done_ids, patience)
    return GroupPoll(done, [*reply["not_found"], *not_found])


def _fetch(
    settings: ClientSettings, execution_ids: Sequence[str], patience: Patience
) -> Flow[tuple[list[Execution], list[str]]]:
    """Return at most 500 runs whole, in as many requests as their size needs; and the ids that are not known."""
    left, found, not_found = list(execution_ids), list[Execution](), list[str]()
    while left:
        items = [{"execution_id": execution_id} for execution_id in left]
        reply = yield from _post_poll(settings, {"items": items, "view": "full"}, patience)
        found += [Execution.from_json(view) for view in reply["changed"]]
        not_found += reply["not_found"]
        before, left = len(left), reply.get("left_out") or []
        if len(left) >= before:
            raise ServerFault("a poll of many returned none of its runs: it is no reply of Bucket's")
        if left:
            yield Sleep(PAUSE_MIN_S)
    return found, not_found


def due_by_of(settings: ClientSettings, timeout: float | None) -> float | None:
    """Return the monotonic time at which a wait is over; None without a timeout. Raises ValueError for nonsense."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be 0 seconds or more, not {timeout}")
    return settings.clock() + timeout


def _check_time(settings: ClientSettings, due_by: float | None, what: str, *, is_over: bool = False) -> None:
    if due_by is not None and settings.clock() >= due_by and not is_over:
        raise Timeout(f"{what}: not done in time; what is not done goes on, and can be waited for again")


def _pause_of(reply: Reply, seen: Execution | None) -> float:
    """Return the pause that a reply asks for, in seconds; the header of a 304 counts, not the body that is kept."""
    if reply.status != _NOT_MODIFIED and seen is not None and seen.poll_after_ms is not None:
        return hinted_pause_s(seen.poll_after_ms)
    return max(reply.retry_after_s or 1.0, PAUSE_MIN_S)


def _post_poll(settings: ClientSettings, body: dict[str, Any], patience: Patience) -> Flow[dict[str, Any]]:
    request = Request("POST", "/executions/poll", body=encode(body))
    reply = yield from call_json(settings, request, patience, needs=("changed", "not_found", "poll_after_ms"))
    return reply


def _ids(execution_ids: Iterable[str]) -> list[str]:
    if isinstance(execution_ids, str):
        raise TypeError("execution_ids must be several ids, such as a list; one id is no list")
    return list(execution_ids)


def refuse_unknown(ids: Sequence[str]) -> None:
    """Raise NotFound if there are ids that Bucket does not know."""
    if ids:
        raise NotFound(f"Bucket does not know {', '.join(ids[:3])}, or no longer keeps it", status=404)


def _hold_s(settings: ClientSettings, due_by: float | None) -> float:
    """Return for how many whole seconds the server may hold a request; 0 if it must not."""
    left_s = HOLD_S if due_by is None else due_by - settings.clock()
    return float(max(0, math.floor(min(HOLD_S, left_s))))


def _held(request: Request, hold_s: float) -> Request:
    headers = {**request.headers, "Prefer": f"wait={hold_s:.0f}"} if hold_s else request.headers
    return replace(request, headers=headers, hold_s=hold_s)


def _sleep_within(settings: ClientSettings, seconds: float, due_by: float | None) -> Flow[None]:
    left_s = math.inf if due_by is None else max(0.0, due_by - settings.clock())
    if (pause_s := min(seconds, left_s)) > 0:
        yield Sleep(pause_s)
