"""Submits: one run, a run of one agent, a retry of a run that has ended; each carries an Idempotency-Key."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, Unpack

from bucket_client.calls import Patience, call, object_of, post, segment, warn_of
from bucket_client.effects import Flow, Reply, Request
from bucket_client.errors import BucketError
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings


class SubmitOptions(TypedDict, total=False):
    """What a submit may say beside its basket and its input; docs/api.md of Bucket describes each.

    Without an ``idempotency_key`` the client makes one, so that a repeat of its own is safe. A key of yours makes a
    submit safe also after your own program was restarted. ``run_after`` is an aware datetime or an RFC 3339 string.
    """

    idempotency_key: str | None
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    reference: str | None
    run_after: datetime | str | None
    run_after_s: float | None
    start_deadline_s: float | None
    deadline_s: float | None
    request_id: str | None


_OPTIONS: Final = frozenset(SubmitOptions.__annotations__)
_HEADERS: Final = frozenset({"idempotency_key", "request_id"})


def run(
    settings: ClientSettings,
    basket: str | Mapping[str, Any],
    input: Mapping[str, Any] | None = None,  # noqa: A002 -- callers write run("x", input=...)
    **options: Unpack[SubmitOptions],
) -> Flow[Execution]:
    """Submit a run and return it as it was accepted, without waiting for its end.

    ``basket`` is the name of a stored basket, or the definition of one for this run alone. Without ``input`` the sample
    input of the first agent is used, and a warning says so. Raises BucketError for a submit that was refused.
    """
    reply = yield from submit(settings, run_request(basket, input, **options))
    return accepted(reply)


def run_agent(
    settings: ClientSettings,
    agent: str,
    input: Mapping[str, Any],  # noqa: A002
    *,
    stateful: bool = False,
    **options: Unpack[SubmitOptions],
) -> Flow[Execution]:
    """Submit a run of one agent and return it as it was accepted."""
    body = {"agent_name": agent, "input_data": input} | ({"stateful": True} if stateful else {})
    reply = yield from submit(settings, _request("/run-agent", body, options))
    return accepted(reply)


def retry(
    settings: ClientSettings,
    execution_id: str,
    *,
    start: Literal["failed", "start"] = "failed",
    idempotency_key: str | None = None,
) -> Flow[Execution]:
    """Run a failed or cancelled run again, as a new run that is returned: what did not complete, or from the ``start``.

    Raises Conflict if the run cannot be retried.
    """
    path = f"/executions/{segment(execution_id)}/retry"
    reply = yield from submit(settings, post(path, {"from": start}, {"Idempotency-Key": _key(idempotency_key)}))
    return accepted(reply)


def run_request(
    basket: str | Mapping[str, Any],
    input: Mapping[str, Any] | None,  # noqa: A002
    **options: Unpack[SubmitOptions],
) -> Request:
    """Return the request that submits a run of ``basket``."""
    body: dict[str, Any] = {"basket_name": basket} if isinstance(basket, str) else {"config": basket}
    if input is not None:
        body["input_data"] = input
    return _request("/run-basket", body, options)


def submit(settings: ClientSettings, request: Request, patience: Patience | None = None) -> Flow[Reply]:
    """Send a submit and return its reply; an error bears the key with which a repeat is safe."""
    try:
        reply = yield from call(settings, request, patience)
    except BucketError as error:
        error.idempotency_key = request.headers["Idempotency-Key"]
        raise
    return reply


def accepted(reply: Reply) -> Execution:
    """Return the run in the reply to a submit, and issue the warnings of that."""
    execution = execution_of(reply)
    warn_of(execution.raw, execution)
    return execution


def execution_of(reply: Reply) -> Execution:
    """Return the run in the reply to a submit or a poll."""
    return Execution.from_json(object_of(reply))


def item_of(basket: str | Mapping[str, Any], options: SubmitOptions) -> dict[str, Any]:
    """Return a submit as an item of a batch, without its input and its key."""
    return ({"basket_name": basket} if isinstance(basket, str) else {"config": basket}) | _members(options)


def moment_text(moment: datetime | str | None) -> str | None:
    """Return a time as RFC 3339. Raises ValueError for a datetime without a time zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{moment} has no time zone: write datetime.now(UTC), or .astimezone()")
        return moment.isoformat()
    return moment


def _members(options: SubmitOptions) -> dict[str, Any]:
    """Return the options that are members of the body. Raises TypeError for one that does not exist."""
    check_names(options)
    members = {name: value for name, value in options.items() if value is not None and name not in _HEADERS}
    if "run_after" in members:
        members["run_after"] = moment_text(options["run_after"])
    return members


def _request(path: str, body: dict[str, Any], options: SubmitOptions) -> Request:
    members = _members(options)
    headers = {"Idempotency-Key": _key(options.get("idempotency_key"))}
    if request_id := options.get("request_id"):
        headers["X-Request-ID"] = request_id
    return post(path, body | members, headers)


def _key(given: str | None) -> str:
    if given is None:
        return uuid.uuid4().hex
    if not isinstance(given, str):
        raise TypeError(f"idempotency_key must be a str, not {type(given).__name__}")
    return given


def check_names(options: Mapping[str, Any]) -> None:
    """Raise TypeError for a misspelt option, as Python does for a misspelt argument."""
    for name in options.keys() - _OPTIONS:
        similar = difflib.get_close_matches(name, _OPTIONS, 1)
        hint = f"; did you mean {similar[0]!r}?" if similar else f"; there are {', '.join(sorted(_OPTIONS))}"
        raise TypeError(f"a submit has no option {name!r}{hint}")
