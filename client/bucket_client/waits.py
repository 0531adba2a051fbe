"""Waits: poll a run, or many, until they are done, as often as the server's hints say and no more often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Unpack

from bucket_client.batches import ITEMS_MAX
from bucket_client.calls import Patience, call, call_json, encode, segment
from bucket_client.effects import Flow, Reply, Request, Sleep
from bucket_client.errors import NotFound, Timeout
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings
from bucket_client.submits import SubmitOptions, execution_of, run_request, submit

HOLD_S: Final = 20.0
"""For how long the server is asked to hold a poll; it grants at most 30 s."""
_NOT_MODIFIED: Final = 304
_SECOND_LOOK_S: Final = 0.25
_PAUSE_MIN_MS: Final = 250

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
    done = yield from _wait_from(settings, execution_id, None, on_progress, due_by)
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
    hold_s = 0.0 if on_progress else _hold_s(settings, due_by)
    reply = yield from submit(settings, _held(request, hold_s))
    seen = execution_of(reply)
    if on_progress:
        on_progress(seen)
    if not seen.done:
        pause_s = 0.0 if "preference-applied" in reply.headers else pause_of(seen, reply)
        yield from _sleep_within(settings, pause_s, due_by)
    if not seen.done or seen.raw.get("steps") is None:  # a repeat of a submit may find a run that is done
        seen = yield from _wait_from(settings, seen.execution_id, seen, on_progress, due_by)
    return seen.raise_for_status() if check else seen


def _wait_from(
    settings: ClientSettings,
    execution_id: str,
    seen: Execution | None,
    on_progress: OnProgress | None,
    due_by: float | None,
) -> Flow[Execution]:
    """Poll a run until it is done; ``seen`` is what is known of it."""
    path = f"/executions/{segment(execution_id)}"
    etag: str | None = None
    while True:
        hold_s = _hold_s(settings, due_by)
        params = {"until": "done"} if on_progress is None else {}
        request = Request("GET", path, params, headers={"If-None-Match": etag} if etag else {})
        reply = yield from call(settings, _held(request, hold_s), Patience.for_a_wait(settings, due_by))
        if reply.status != _NOT_MODIFIED:
            seen, etag = execution_of(reply), reply.headers.get("etag")
            if on_progress:
                on_progress(seen)
        if seen is not None and (seen.done or _is_final(reply)):
            return seen
        if due_by is not None and settings.clock() >= due_by:
            raise Timeout(f"{execution_id} is not done in time; it goes on, and can be waited for again", seen)
        was_held = "preference-applied" in reply.headers
        yield from _sleep_within(settings, _SECOND_LOOK_S if was_held else pause_of(seen, reply), due_by)


@dataclass(slots=True)
class Watched:
    """One run among many that are waited for: the revision that was last seen."""

    execution_id: str
    rev: int | None = None


def wait_many(
    settings: ClientSettings,
    execution_ids: Iterable[str],
    on_progress: OnProgress | None = None,
    *,
    timeout: float | None = None,
) -> Flow[list[Execution]]:
    """Wait until all of these runs are done and return them, in the order of their ids, however they ended.

    ``on_progress`` is called with each run that is done. Raises Timeout, and NotFound for ids that are not known.
    """
    order = list(execution_ids)
    due_by = due_by_of(settings, timeout)
    left = {execution_id: Watched(execution_id) for execution_id in order}
    done: dict[str, Execution] = {}
    while left:
        pause_s = math.inf
        for group in groups(list(left.values())):
            polled = yield from poll_group(settings, group, due_by)
            refuse_unknown(polled.not_found)
            for execution in polled.done:
                done[execution.execution_id] = execution
                del left[execution.execution_id]
                if on_progress:
                    on_progress(execution)
            pause_s = min(pause_s, polled.pause_s)
        if left and due_by is not None and settings.clock() >= due_by:
            raise Timeout(f"{len(left)} of {len(order)} runs are not done in time, {next(iter(left))} among them")
        if left:
            yield from _sleep_within(settings, pause_s, due_by)
    return [done[execution_id] for execution_id in order]


def poll_many(settings: ClientSettings, execution_ids: Iterable[str]) -> Flow[list[Execution]]:
    """Poll many runs once and return them with results and logs, in the order of their ids. Raises NotFound."""
    order = list(execution_ids)
    views: dict[str, Execution] = {}
    for group in groups([Watched(execution_id) for execution_id in dict.fromkeys(order)]):
        found, not_found = yield from _fetch(settings, [watched.execution_id for watched in group], None)
        refuse_unknown(not_found)
        views |= {execution.execution_id: execution for execution in found}
    return [views[execution_id] for execution_id in order]


@dataclass(frozen=True, slots=True)
class GroupPoll:
    """What a poll of a group brought: the runs that are done, whole, and the pause before the next poll."""

    done: list[Execution]
    not_found: list[str]
    pause_s: float


def poll_group(settings: ClientSettings, group: Sequence[Watched], due_by: float | None = None) -> Flow[GroupPoll]:
    """Poll at most 500 runs by their revisions, and fetch those that are done with results and logs."""
    items = [{"execution_id": watched.execution_id, "rev": watched.rev} for watched in group]
    reply = yield from _post_poll(settings, {"items": items}, due_by)
    revs = {view["execution_id"]: view["rev"] for view in reply["changed"] if not view["done"]}
    for watched in group:
        watched.rev = revs.get(watched.execution_id, watched.rev)
    done_ids = [view["execution_id"] for view in reply["changed"] if view["done"]]
    done, not_found = yield from _fetch(settings, done_ids, due_by)
    pause_s = max(reply["poll_after_ms"] or 0, _PAUSE_MIN_MS) / 1000
    return GroupPoll(done, [*reply["not_found"], *not_found], pause_s)


def _fetch(
    settings: ClientSettings, execution_ids: Sequence[str], due_by: float | None
) -> Flow[tuple[list[Execution], list[str]]]:
    """Return at most 500 runs whole, in as many requests as their size needs; and the ids that are not known."""
    left, found, not_found = list(execution_ids), list[Execution](), list[str]()
    while left:
        items = [{"execution_id": execution_id} for execution_id in left]
        reply = yield from _post_poll(settings, {"items": items, "view": "full"}, due_by)
        found += [Execution.from_json(view) for view in reply["changed"]]
        not_found += reply["not_found"]
        left = reply.get("left_out") or []
    return found, not_found


def due_by_of(settings: ClientSettings, timeout: float | None) -> float | None:
    """Return the monotonic time at which a wait is over; None without a timeout."""
    return None if timeout is None else settings.clock() + timeout


def pause_of(seen: Execution | None, reply: Reply) -> float:
    """Return the pause that a reply asks for, in seconds; the header of a 304 counts, not the body that is kept."""
    if reply.status != _NOT_MODIFIED and seen is not None and seen.poll_after_ms is not None:
        return seen.poll_after_ms / 1000
    return reply.retry_after_s or 1.0


def _post_poll(settings: ClientSettings, body: dict[str, Any], due_by: float | None) -> Flow[dict[str, Any]]:
    request = Request("POST", "/executions/poll", body=encode(body))
    reply = yield from call_json(settings, request, Patience.for_a_wait(settings, due_by))
    return reply


def groups(watched: Sequence[Watched]) -> list[Sequence[Watched]]:
    """Return the runs in groups that one poll takes."""
    return [watched[start : start + ITEMS_MAX] for start in range(0, len(watched), ITEMS_MAX)]


def refuse_unknown(ids: Sequence[str]) -> None:
    """Raise NotFound if there are ids that Bucket does not know."""
    if ids:
        raise NotFound(f"Bucket does not know {', '.join(ids[:3])}, or no longer keeps it", status=404)


def _is_final(reply: Reply) -> bool:
    return reply.status == _NOT_MODIFIED and reply.retry_after_s is None


def _hold_s(settings: ClientSettings, due_by: float | None) -> float:
    """Return for how many whole seconds the server may hold a request; 0 if it must not."""
    left_s = HOLD_S if due_by is None else due_by - settings.clock()
    return float(max(0, math.floor(min(HOLD_S, left_s))))


def _held(request: Request, hold_s: float) -> Request:
    headers = {**request.headers, "Prefer": f"wait={hold_s:.0f}"} if hold_s else request.headers
    return Request(request.method, request.path, request.params, request.body, headers, hold_s)


def _sleep_within(settings: ClientSettings, seconds: float, due_by: float | None) -> Flow[None]:
    left_s = math.inf if due_by is None else max(0.0, due_by - settings.clock())
    if (pause_s := min(seconds, left_s)) > 0:
        yield Sleep(pause_s)
