"""What is there: lists of runs, logs, agents, baskets, health; and cancels, which change a run but make none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from bucket_client.calls import PAUSE_MIN_S, Patience, call, call_json, hinted_pause_s, post, segment
from bucket_client.effects import Emit, EmittingFlow, Flow, Request, Sleep
from bucket_client.errors import Conflict, NotFound, ServerFault
from bucket_client.execution import Execution, LogLine
from bucket_client.settings import ClientSettings
from bucket_client.submits import moment_text
from bucket_client.waits import HOLD_S

_PAGE_MAX: Final = 200


def executions(
    settings: ClientSettings,
    *,
    status: str | Iterable[str] | None = None,
    basket: str | None = None,
    tag: str | None = None,
    reference: str | None = None,
    request_id: str | None = None,
    retry_of: str | None = None,
    idempotency_key: str | None = None,
    created_after: datetime | str | None = None,
    created_before: datetime | str | None = None,
    updated_since: datetime | str | None = None,
    order: Literal["newest", "oldest", "updated"] = "newest",
    fields: str | Iterable[str] | None = None,
    limit: int | None = None,
) -> EmittingFlow[Execution]:
    """Yield the runs that pass all filters, page by page; at most ``limit`` of them.

    ``status`` is one or several. ``fields`` adds ``result`` or ``metadata``, or selects less of each run. A result that
    is too large for a page is ``{"omitted": True, ...}``: poll that run.
    """
    filters = {
        "status": status if status is None or isinstance(status, str) else ",".join(status),
        "basket": basket,
        "tag": tag,
        "reference": reference,
        "request_id": request_id,
        "retry_of": retry_of,
        "idempotency_key": idempotency_key,
        "created_after": moment_text(created_after),
        "created_before": moment_text(created_before),
        "updated_since": moment_text(updated_since),
        "order": order,
        "fields": fields if fields is None or isinstance(fields, str) else ",".join(fields),
    }
    params = {name: value for name, value in filters.items() if value is not None}
    left = limit
    while left is None or left > 0:
        page_size = str(_PAGE_MAX if left is None else min(left, _PAGE_MAX))
        request = Request("GET", "/executions", params | {"limit": page_size})
        page = yield from call_json(settings, request, needs=("executions", "next_cursor"))
        for row in page["executions"]:
            yield Emit(Execution.from_json(row))
        if page["next_cursor"] is None:
            return
        params["cursor"] = page["next_cursor"]
        left = None if left is None else left - len(page["executions"])


def logs(settings: ClientSettings, execution_id: str, *, follow: bool = False, after: int = 0) -> EmittingFlow[LogLine]:
    """Yield the log lines of a run after the line ``after``, oldest first; with ``follow`` until the run is done.

    A run keeps its newest 1,000 lines. A line keeps its ``seq`` for ever, so a reader may stop and go on later.
    """
    path = f"/executions/{segment(execution_id)}"
    hold_s = HOLD_S if follow else 0.0
    params = {"limit": "1000", "fields": "logs,next_after,total,poll_after_ms"}
    params |= {"wait": f"{hold_s:.0f}"} if follow else {}
    while True:
        request = Request("GET", path, params | {"after": str(after)}, hold_s=hold_s)
        needs = ("logs", "next_after", "total", "done")
        page = yield from call_json(settings, request, Patience.for_a_wait(settings), needs=needs)
        for line in page["logs"]:
            yield Emit(line)
        after = page["next_after"]
        if after < page["total"] and page["logs"]:
            continue
        if page["done"] or not follow:
            return
        yield Sleep(PAUSE_MIN_S if page["logs"] else hinted_pause_s(page.get("poll_after_ms")))


def cancel(settings: ClientSettings, execution_id: str, reason: str | None = None) -> Flow[Execution]:
    """Ask a run to stop and return it; ``cancel["outcome"]`` is ``applied``, ``pending`` or ``already_final``."""
    body = {} if reason is None else {"reason": reason}
    view = yield from call_json(settings, post(f"/executions/{segment(execution_id)}/cancel", body))
    return Execution.from_json(view)


def output(settings: ClientSettings, execution_id: str, step: str) -> Flow[Any]:
    """Return the whole output of one completed step, however large. Raises NotFound if there is none."""
    reply = yield from call(settings, Request("GET", f"/executions/{segment(execution_id)}/outputs/{segment(step)}"))
    return reply.json()


def agents(settings: ClientSettings, domain: str | None = None) -> Flow[list[dict[str, Any]]]:
    """Return the specs of all agents, or of those of one domain, by name."""
    reply = yield from call(settings, Request("GET", "/agents", {} if domain is None else {"domain": domain}))
    specs = reply.json()
    if not isinstance(specs, list):
        raise ServerFault(f"the server replied {reply.status} with JSON that is no array", status=reply.status)
    return specs


def agent(settings: ClientSettings, name: str) -> Flow[dict[str, Any]]:
    """Return the spec of one agent. Raises NotFound."""
    spec = yield from call_json(settings, Request("GET", f"/agents/{segment(name)}"))
    return spec


def baskets(settings: ClientSettings) -> Flow[list[dict[str, Any]]]:
    """Return all stored baskets, by name."""
    reply = yield from call_json(settings, Request("GET", "/baskets"), needs=("baskets",))
    found: list[dict[str, Any]] = reply["baskets"]
    return found


def basket(settings: ClientSettings, name: str) -> Flow[dict[str, Any]]:
    """Return one stored basket. Raises NotFound."""
    found = yield from call_json(settings, Request("GET", f"/baskets/{segment(name)}"))
    return found


def create_basket(
    settings: ClientSettings,
    name: str,
    *,
    agents: Sequence[str] | None = None,
    steps: Sequence[Mapping[str, Any]] | None = None,
    execution_strategy: str | None = None,
    description: str | None = None,
) -> Flow[dict[str, Any]]:
    """Store a basket under a free name and return it. Raises Conflict if the name is taken."""
    members = {
        "agents": None if agents is None else list(agents),
        "steps": None if steps is None else list(steps),
        "execution_strategy": execution_strategy,
        "description": description,
    }
    definition = {member: value for member, value in members.items() if value is not None}
    try:
        reply = yield from call_json(settings, post("/create-basket", {"name": name} | definition), needs=("basket",))
    except Conflict as conflict:
        if conflict.attempts == 1:
            raise
        stored = yield from basket(settings, name)
        if any(stored.get(member) != value for member, value in definition.items()):
            raise
        return stored  # it was stored by a request whose reply was lost
    created: dict[str, Any] = reply["basket"]
    return created


def delete_basket(settings: ClientSettings, name: str) -> Flow[None]:
    """Delete a stored basket; its runs stay readable. Raises NotFound."""
    yield from _delete(settings, f"/baskets/{segment(name)}")


def consumers(settings: ClientSettings) -> Flow[list[dict[str, Any]]]:
    """Return the consumers of the change feed, each with its lag in seconds."""
    reply = yield from call_json(settings, Request("GET", "/consumers"), needs=("consumers",))
    found: list[dict[str, Any]] = reply["consumers"]
    return found


def delete_consumer(settings: ClientSettings, name: str) -> Flow[None]:
    """Delete a consumer of the change feed with its cursor. Raises NotFound."""
    yield from _delete(settings, f"/consumers/{segment(name)}")


def health(settings: ClientSettings) -> Flow[dict[str, Any]]:
    """Return the state of the services, as ``GET /health`` does. Raises Unavailable if the server does not reply."""
    found = yield from call_json(settings, Request("GET", "/health"))
    return found


def _delete(settings: ClientSettings, path: str) -> Flow[None]:
    try:
        yield from call(settings, Request("DELETE", path))
    except NotFound as error:
        if error.attempts == 1:
            raise  # else a request before it has deleted it, and its reply was lost
