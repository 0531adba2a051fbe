"""What schemathesis is told beside the document: which refusals of sound requests no form can write down.

Loaded by schemathesis itself; it is not imported from here.
"""

from __future__ import annotations

import re
from typing import Any, Final

import schemathesis
from schemathesis.core.failures import Failure

# What depends on what is stored, on the agents there are, or on all of the body at once.
UNTOLD_BY_FORMS: Final = {
    "agent_not_found",
    "callbacks_not_supported",
    "credentials_not_accepted",
    "cursor_expired",  # one of an earlier stack, which hypothesis remembers
    "cursor_invalid",
    "idempotency_key_reused",
    "invalid_json",  # integers beyond 64 bits, NUL in a key
    "unknown_agent",
}
# Schemas of agents, graphs, and how much 16 KiB of JSON is.
UNTOLD_PLACES: Final = ("/input_data", "/metadata", "/steps", "/config/steps", "step ", "/run_after")
_SECONDS: Final = re.compile(r"[0-9.]+")


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Answer whether a failure counts: not where a sound request was refused for what no form could have told."""
    if type(failure).__name__ in {"UnsupportedMethodResponse", "AllowHeaderMismatch"}:
        # Any word after /executions/ may be an id, so that a GET of /executions/poll is a poll of what is not there.
        return case.path != "/executions/poll"
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    problem = response.json()
    if problem["error_code"] in UNTOLD_BY_FORMS or "is reserved for the simulator" in problem["detail"]:
        return False
    places = [str(fault.get("pointer", "none")) for fault in problem["details"]]
    return not places or not all(place.startswith(UNTOLD_PLACES) for place in places)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Answer whether a case is of use: not where it takes away the baskets that the others run."""
    return case.method != "DELETE" or case.path_parameters.get("name") not in {"working_test", "chained_test"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Hold no case for long: what a long wait does is shown elsewhere."""
    waits = (case.query or {}).get("wait")
    if isinstance(waits, str) and _SECONDS.fullmatch(waits):
        case.query["wait"] = "0.05"
    for name in [name for name in case.headers or () if name.lower() == "prefer"]:
        if "wait" in str(case.headers[name]).lower():
            case.headers[name] = "wait=1"
