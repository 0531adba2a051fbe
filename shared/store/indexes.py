"""The indexes of each collection, created when a process prepares the database."""

from __future__ import annotations

from typing import Any, Final

from pymongo import IndexModel

TOMBSTONE_TTL_S: Final = 86_400
_Document = dict[str, Any]

_NEWEST_FIRST: Final = (("created_at", -1), ("_id", -1))
_LAST_FINISHED: Final = (("finished_at", -1), ("_id", -1))
_DEAD_LETTERS: Final = {"partialFilterExpression": {"dead_letter": True}}


def _if_present(field_name: str) -> _Document:
    return {"partialFilterExpression": {field_name: {"$exists": True}}}


INDEXES: Final[dict[str, list[IndexModel]]] = {
    "executions": [
        IndexModel(
            ["integrator", "idempotency.key"], name="idempotency_key", unique=True, **_if_present("idempotency.key")
        ),
        IndexModel(["due_by"], name="due_by", **_if_present("due_by")),
        # Lists; docs/benchmarks.md has the cost of each. All but the last are read in the order of a list.
        IndexModel(["integrator", *_NEWEST_FIRST], name="list"),
        IndexModel(["integrator", "basket_name", *_NEWEST_FIRST], name="list_by_basket"),
        IndexModel(["integrator", "status", *_NEWEST_FIRST], name="list_by_status"),
        IndexModel(["integrator", "request_id", *_NEWEST_FIRST], name="list_by_request"),
        IndexModel(["integrator", "tags", *_NEWEST_FIRST], name="list_by_tag", **_if_present("tags.0")),
        IndexModel(["integrator", "reference", *_NEWEST_FIRST], name="list_by_reference", **_if_present("reference")),
        IndexModel(
            ["integrator", "error.error_code", *_NEWEST_FIRST], name="list_by_code", **_if_present("error.error_code")
        ),
        IndexModel(["integrator", "updated_at", "_id"], name="list_of_changes"),
        IndexModel(["integrator", "retry_of"], name="retry_of", **_if_present("retry_of")),
        # The insert of the run decides a requeue: two of one dead letter never both succeed.
        IndexModel(["integrator", "requeue_of"], name="requeue_of", unique=True, **_if_present("requeue_of")),
        IndexModel(["integrator", *_LAST_FINISHED], name="dead_letter_pages", **_DEAD_LETTERS),
        IndexModel(["integrator", "error.error_code", *_LAST_FINISHED], name="dead_letters_by_code", **_DEAD_LETTERS),
        IndexModel(["integrator", "error.agent", *_LAST_FINISHED], name="dead_letters_by_agent", **_DEAD_LETTERS),
        IndexModel(["integrator", "basket_name", *_LAST_FINISHED], name="dead_letters_by_basket", **_DEAD_LETTERS),
        IndexModel(["created_at"], name="audit_outbox", **_if_present("audit")),
        IndexModel(["withdrawn_at"], name="tombstones", expireAfterSeconds=TOMBSTONE_TTL_S, sparse=True),
    ],
    "baskets": [IndexModel(["integrator", "name"], name="name", unique=True)],
    "keys": [IndexModel(["changed_at"], name="changes")],
    "integrations": [IndexModel(["name"], name="name", unique=True), IndexModel(["changed_at"], name="changes")],
    "audit": [
        IndexModel(["event_id"], name="event", unique=True),
        IndexModel(["integrator", "_id"], name="by_integrator"),
        IndexModel(["action", "_id"], name="by_action"),
        IndexModel(["subject", "_id"], name="by_subject"),
    ],
    "outputs": [IndexModel(["execution_id"], name="execution")],
    "failures": [IndexModel(["execution_id", "at"], name="execution")],
    "dead_letters": [IndexModel(["integrator", "dismissed_at", *_LAST_FINISHED], name="open_pages")],
    "agent_memory": [IndexModel(["expires_at"], name="expiry", expireAfterSeconds=0)],
    "ledger": [
        IndexModel(["integrator", ("at", -1)], name="newest"),
        IndexModel(["integrator", "account", "_id"], name="accounts"),
    ],
}
