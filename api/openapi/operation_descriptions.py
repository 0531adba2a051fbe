"""A description of each operation for the OpenAPI document: what a caller should know beyond its one-line summary."""

from __future__ import annotations

from typing import Final

_SUBMIT: Final = (
    "The run is stored before the reply, and workers execute it. Poll `status_url` until `done` is true. Send an "
    "`Idempotency-Key`, so that a repeat after a lost reply does not run twice."
)
_POLL: Final = (
    "Wait `poll_after_ms` (or `Retry-After`) between two polls, until `done` is true. A failed run is 200 too: read "
    "`status` and `error`. With `If-None-Match`, an unchanged run is 304; with `wait`, the reply is held until the run "
    "changes (long poll)."
)
_RERUN: Final = "The reply is the 202 of a submit, with `retry_of`. The old execution does not change."
_PAGE: Final = "Rows come page by page: pass `next_cursor` back as `cursor`, with the same filters, until it is null."
_LINES: Final = (
    "For people who watch. Pass `next_since` back as `since` to get the lines that follow. To miss no line of a run, "
    "poll the run with `after`."
)
_FEED: Final = (
    "Each execution is returned as it is now, at least once for its changes; go on from `next_since`, also after an "
    "empty page. With `wait`, the reply is held until there is a change."
)

DESCRIPTIONS: Final[dict[str, str]] = {
    "POST /run-basket": f"{_SUBMIT} With `Prefer: wait=10` the reply is the finished run, if it is done in time.",
    "POST /run-agent": f"{_SUBMIT} With `Prefer: wait=10` the reply is the finished run, if it is done in time.",
    "POST /run-basket/batch": (
        "The reply has one outcome for each item, in the order of the request. Send the items whose `status` is 503 "
        "again. Give each item an `idempotency_key`, so that a repeat does not run twice."
    ),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "DELETE /executions/{execution_id}": (
        "Erases the input, outputs, checkpoints, log lines, metadata, reference and the texts of errors; the record "
        "stays, with `erased_at`. 409 `not_final` if the run is not done. A repeat changes nothing and completes what "
        "a 503 has left."
    ),
    "GET /executions/{execution_id}/result": (
        "For clients that know only the pattern of 202 until it is done and then 200. With `wait`, the reply is held "
        "until the run is done. A failed or cancelled run is 409, and `error` says why: no repeat changes that."
    ),
    "GET /executions/{execution_id}/input": "To run the same again with changes, or to see what was sent.",
    "GET /executions/{execution_id}/outputs/{step}": (
        "A poll leaves out outputs of more than 256 KiB and shows the URL of this operation instead. 404 `not_found` "
        "if the step is not completed."
    ),
    "POST /executions/{execution_id}/cancel": (
        "200 if the run is over, 202 if a step has yet to stop: then poll on. A second cancel changes nothing."
    ),
    "POST /executions/{execution_id}/retry": (
        f"{_RERUN} `failed` keeps the finished steps, `start` runs all of them again. 409 `not_retryable` if the run "
        "is not over, or has completed."
    ),
    "GET /executions": f"{_PAGE} Each row is what a poll shows, without the fields that can be large.",
    "POST /executions/poll": (
        "Send each execution with the `rev` that you have. Only those that have changed are returned; poll again "
        "after `poll_after_ms`. It is never held."
    ),
    "POST /executions/actions": (
        "Cancels, retries, erases or dismisses all runs that match `filter`, the oldest first, as an execution that is "
        "polled and cancelled like any other. Its `result` has how many `matched` and were `done`, `failed` or, as "
        "they had changed, `skipped`; with `dry_run` it only counts. `filter` has the names of `GET /executions`, and "
        "at least one; an unknown one is 400."
    ),
    "GET /dead-letters": f"{_PAGE} A dead letter is a run that failed for good, or a message that cannot be read.",
    "POST /dead-letters/{letter_id}/requeue": (
        f"{_RERUN} The letter leaves the list; if the new run fails too, it is a dead letter in its place. A letter is "
        "requeued once: 409 `already_requeued`. 409 `not_retryable` if the letter is a message, or was dismissed."
    ),
    "POST /dead-letters/{letter_id}/dismiss": (
        "The letter leaves the list for good, and its run stays as it is; a repeat changes nothing. A message that "
        "comes again is in the list again. 409 `already_requeued` if the letter was sent again."
    ),
    "GET /executions/changes": f"{_FEED} Changes are kept for 7 days; an older cursor is 410 with `resync`.",
    "GET /consumers": "A consumer is a cursor of the change feed that Bucket keeps for a client.",
    "PUT /consumers/{name}": "201 if it was created, 200 if it exists: its cursor stays where it is.",
    "DELETE /consumers/{name}": "Its cursor is gone. A consumer of this name may be created again.",
    "GET /consumers/{name}/changes": f"{_FEED} Acknowledge a page with `ack` after you have acted on it.",
    "POST /consumers/{name}/ack": "The cursor only moves forward. The next page begins there.",
    "GET /agents": (
        "A spec has the agent's input and output schemas, samples, timeout, retry policy and queue. `availability` "
        "says whether the agent can run now, and `durations` how long its attempts take."
    ),
    "GET /agents/{name}": "The spec as its author wrote it, with the defaults filled in, and the state of the agent.",
    "GET /baskets": "All baskets, sorted by name.",
    "GET /baskets/{name}": "A basket has either `agents` or `steps`.",
    "POST /create-basket": "A stored basket is never changed: delete it and create it again.",
    "DELETE /baskets/{name}": "For up to 2 s other processes may still run it; runs that have begun go on.",
    "GET /logs": _LINES,
    "GET /agent-logs/{name}": _LINES,
    "GET /health": "For people and dashboards. `unhealthy` without MongoDB, `degraded` if another part is not healthy; "
    "`reasons` says in words what to start. `dependencies` are the services that agents call.",
    "GET /workers": "An operator sees all workers, and of the steps that they run those of its integrator. What runs "
    "may be five seconds old. What a worker of an older release does not say is null.",
    "GET /executions/stats": "`queues` has what waits and runs now, also what a worker has received and not begun: "
    "scale by `wanted_workers`. `windows` has what happened lately. The final statuses in `by_status` are those of the "
    "last 24 hours.",
    "GET /ready": "For load balancers: send submits here only while it is 200.",
    "GET /metrics": "Summed over all processes of the API, with the figures of the queue and the workers.",
    "GET /openapi.json": "It has an `ETag`: with `If-None-Match`, an unchanged document is 304.",
    "GET /docs": "The page is Swagger UI.",
    "GET /docs/{file}": "Only the files that the page loads; any other is 404.",
    "GET /problems/{code}": "The `type` of every problem leads here; the text is that of the documentation.",
    "GET /audit": "An auditor sees the events of its integrator, an admin all. Each write has one, stored before the "
    "answer; failed log-ins and refused rights too.",
    "GET /me": "While the server requires no keys, everyone is the same caller, with the role admin.",
    "GET /integrations": f"Sorted by name. {_PAGE}",
    "POST /integrations": (
        "`name` becomes the integrator of its keys, and `baskets` all that they may run. The agents and baskets must "
        "exist. Next come `review`, `approve`, the checklists and `activate`."
    ),
    "GET /integrations/{integration_id}": "`history` says who moved it when, and why.",
    "PUT /integrations/{integration_id}": (
        "Only while it is `requested` or `changes_requested`; after that, its review can request changes. It is "
        "`requested` then."
    ),
    "POST /integrations/{integration_id}/review": "From `requested` or `changes_requested` to `in_review`.",
    "POST /integrations/{integration_id}/approve": "From `in_review` to `approved`.",
    "POST /integrations/{integration_id}/request-changes": "From `in_review` to `changes_requested`.",
    "POST /integrations/{integration_id}/activate": (
        "From `approved` or `suspended` to `active`, if all items of both checklists are done. Keep `key` in a secret "
        "store; if the reply was lost, `POST /keys/{key_id}/rotate` makes another. A later activation issues none: "
        "the keys of before may submit again."
    ),
    "POST /integrations/{integration_id}/suspend": (
        "From `active` to `suspended`: its keys may poll, but 403 `integration_inactive` refuses each new run."
    ),
    "PUT /integrations/{integration_id}/checklist": "Items that the body leaves out stay as they are.",
    "GET /integrations/{integration_id}/compliance": "`percentage` is whole, and 100 only if all items are done.",
    "GET /keys": f"Records only: no reply ever shows a key again. {_PAGE}",
    "POST /keys": (
        "Keep `key` in a secret store: no other reply shows it, and Bucket stores only a hash. If the reply was lost, "
        "revoke the key that `GET /keys` lists and make another."
    ),
    "GET /keys/{key_id}": "The record of a key that was made, also after its end.",
    "POST /keys/{key_id}/rotate": (
        "The new key permits the same, for as long a life. Set `grace_s` to the time that the holder needs to exchange "
        "it; without it the old key ends at once."
    ),
    "DELETE /keys/{key_id}": "Every process refuses the key within two seconds; its runs go on.",
}
