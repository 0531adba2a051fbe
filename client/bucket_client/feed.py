"""The change feed as an iterator: a consumer whose cursor the server keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from bucket_client.calls import Patience, call_json, encode, hinted_pause_s, segment
from bucket_client.effects import Emit, EmittingFlow, Flow, Request, Sleep
from bucket_client.errors import NotFound
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings
from bucket_client.waits import HOLD_S

_FIELDS: Final = "basket_name,tags,reference,metadata,result,error,finished_at"


def changes(
    settings: ClientSettings,
    consumer: str,
    *,
    basket: str | None = None,
    tag: str | None = None,
    only_done: bool = False,
    page_size: int = 100,
    follow: bool = True,
) -> EmittingFlow[Execution]:
    """Yield every change of every run for a consumer, each run as it stands, with its result and error.

    A new consumer starts now. A page of at most ``page_size`` changes is acknowledged when the caller asks for what
    follows it: a program that was stopped gets the page again (at least once), and misses nothing. Restarts of the
    server are outlived. Without ``follow`` it ends when no more changes are there. Raises Unavailable after an outage
    of ten minutes.
    """
    path = f"/consumers/{segment(consumer)}"
    yield from _wait_call(settings, Request("PUT", path))
    filters = {name: value for name, value in (("basket", basket), ("tag", tag)) if value is not None}
    params = {"limit": str(page_size), "fields": _FIELDS} | filters | ({"wait": f"{HOLD_S:.0f}"} if follow else {})
    while True:
        try:
            hold_s = HOLD_S if follow else 0.0
            request = Request("GET", f"{path}/changes", params, hold_s=hold_s)
            page = yield from _wait_call(settings, request, ("changes", "next_since", "caught_up", "poll_after_ms"))
        except NotFound as error:
            if error.error_code != "cursor_expired":
                raise
            resync = error.problem["resync"]
            yield from _resync(settings, resync["list"], filters, only_done=only_done)
            yield from _acknowledge(settings, path, resync["since"])
            continue
        for change in page["changes"]:
            if change["done"] or not only_done:
                execution = yield from _whole(settings, change)
                yield Emit(execution)
        yield from _acknowledge(settings, path, page["next_since"])
        if page["caught_up"] and not page["changes"] and not follow:
            return
        if not page["changes"]:
            yield Sleep(hinted_pause_s(page["poll_after_ms"]))


def _resync(
    settings: ClientSettings, address: str, filters: Mapping[str, str], *, only_done: bool
) -> EmittingFlow[Execution]:
    """Yield all runs that may have changed while the consumer was away for longer than changes are kept."""
    parts = urlsplit(address)
    path = parts.path[parts.path.rindex("/executions") :]
    params = dict(parse_qsl(parts.query)) | {"fields": _FIELDS} | dict(filters)
    cursor: str | None = None
    while True:
        request = Request("GET", path, params | ({"cursor": cursor} if cursor else {}))
        page = yield from _wait_call(settings, request, ("executions", "next_cursor"))
        for row in page["executions"]:
            if row["done"] or not only_done:
                execution = yield from _whole(settings, row)
                yield Emit(execution)
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _whole(settings: ClientSettings, row: Mapping[str, Any]) -> Flow[Execution]:
    """Return the run of a row; a result that is too large for a page is fetched."""
    path = f"/executions/{row['execution_id']}"
    omitted = row.get("result")
    if isinstance(omitted, dict) and omitted.get("omitted") is True and omitted.get("url") == f"{path}?fields=result":
        try:
            view = yield from _wait_call(settings, Request("GET", path, {"fields": "result"}), ("result",))
            row = {**row, "result": view["result"]}
        except NotFound:  # its retention ended meanwhile: the change is told all the same, or no page would be passed
            row = {**row, "result": None}
    return Execution.from_json(row)


def _acknowledge(settings: ClientSettings, path: str, cursor: str) -> Flow[None]:
    yield from _wait_call(settings, Request("POST", f"{path}/ack", body=encode({"cursor": cursor})))


def _wait_call(settings: ClientSettings, request: Request, needs: Sequence[str] = ()) -> Flow[dict[str, Any]]:
    reply = yield from call_json(settings, request, Patience.for_a_wait(settings), needs=needs)
    return reply
