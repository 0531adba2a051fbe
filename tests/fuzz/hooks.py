"""Hooks of schemathesis: which refusals of valid requests are right, although no schema can express the reason.

Loaded by schemathesis itself; no module of the tests imports it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import schemathesis
from schemathesis.core.failures import Failure

# Codes that depend on what is stored, on the existing agents, or on the whole body.
NOT_IN_SCHEMAS: Final = {
    "agent_not_found",
    "callbacks_not_supported",
    "credentials_not_accepted",
    "cursor_expired",  # a cursor of an earlier stack, which hypothesis remembers
    "cursor_invalid",
    "execution_erased",
    "idempotency_key_reused",
    "invalid_json",  # integers beyond 64 bits, NUL in a key
    "unknown_agent",
}
WORDS_NOT_IN_SCHEMAS: Final = (
    "is reserved for ", "is not a known key; did you mean", "no such run can be the object of "
)  # fmt: skip
# Rules that no schema expresses: schemas of agents, graphs, the limit of 16 KiB of JSON, addresses.
POINTERS_NOT_IN_SCHEMAS: Final = (
    "/input_data", "/metadata", "/steps", "/config/steps", "step ", "/run_after", "/networks", "/mapping_url",
    "/agents/", "/baskets/", "/integration",
)  # fmt: skip
# Rules between keys: the schemas are flat, because generators of clients drop the keys of one with conditions.
RULES_NOT_IN_SCHEMAS: Final = {
    "is required where there is no config",
    "name the agents to run, in their order",
    "give agents or steps, not both",
    "goes with agents; leave it out beside steps",
    "graph goes with steps; this has agents",
    "is required for this role",
    "give expires_in_days or expires_in_s, not both",
}
_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Return whether a failure counts; a valid request may be refused for a reason outside the schemas."""
    if type(failure).__name__ in {"UnsupportedMethodResponse", "AllowHeaderMismatch"}:
        # Any word after /executions/ may be an id, so GET /executions/poll polls an execution that does not exist.
        return case.path not in {"/executions/actions", "/executions/changes", "/executions/poll", "/executions/stats"}
    if type(failure).__name__ == "AcceptedNegativeData":
        return not _is_ignored_or_refused_alone(case, response)
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    problem = response.json()
    if problem["error_code"] in NOT_IN_SCHEMAS or any(words in problem["detail"] for words in WORDS_NOT_IN_SCHEMAS):
        return False
    faults = problem["details"]
    return not faults or not all(
        str(fault.get("pointer", "none")).startswith(POINTERS_NOT_IN_SCHEMAS)
        or fault["message"] in RULES_NOT_IN_SCHEMAS
        for fault in faults
    )


def _is_ignored_or_refused_alone(case: Any, response: Any) -> bool:
    """Return whether the invalid part of a body is a config beside a name, or an item that was refused in its place."""
    body = case.body if isinstance(case.body, dict) else {}
    if "items" in body:
        items = body["items"] if isinstance(body["items"], list) else []
        has_both = any(isinstance(item, dict) and {"basket_name", "config"} <= set(item) for item in items)
        return case.path == "/run-basket/batch" and (response.json()["rejected"] > 0 or has_both)
    return case.path == "/run-basket" and {"basket_name", "config"} <= set(body)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Return whether a case is useful; one that deletes the baskets that other cases run is not."""
    return case.method != "DELETE" or case.path_parameters.get("name") not in {"working_test", "chained_test"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Shorten the waits of long polls: other tests cover long waits."""
    waits = (case.query or {}).get("wait")
    if _SECONDS.fullmatch(str(waits)):
        case.query["wait"] = 0.05  # a number, or the check would take a valid case for an invalid one
    for name in [name for name in case.headers or () if name.lower() == "prefer"]:
        if "wait" in str(case.headers[name]).lower():
            case.headers[name] = "wait=1"
