"""Checks after a run that what each integrator has is what it made itself, and that every operation was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests

from tests.stack import Stack
from tests.trust.contract import Operation
from tests.trust.findings import Findings
from tests.trust.party import Party
from tests.waiting import wait_until

_LONG = 20_000
_NEED_EARLIER_STEPS = {
    "PUT /integrations/{integration_id}",
    "PUT /integrations/{integration_id}/checklist",
    "POST /integrations/{integration_id}/approve",
    "POST /integrations/{integration_id}/request-changes",
    "POST /integrations/{integration_id}/activate",
    "POST /integrations/{integration_id}/suspend",
}
"""Operations that succeed only after a fixed order of others, which random requests seldom find: tried is enough."""


def check_afterwards(
    stack: Stack, findings: Findings, parties: Sequence[Party], operations: Sequence[Operation]
) -> None:
    """Add to ``findings`` each thing of an integrator that it did not make or change itself."""
    stored = {
        document["_id"]: document
        for document in stack.mongo()["executions"].find(
            {"status": {"$exists": True}}, {"integrator": 1, "retry_of": 1, "status": 1, "cancel": 1}
        )
    }
    _check_seen(findings, parties, stored)
    for party in parties:
        _check_runs(findings, party, stored)
        _check_named(stack, findings, party)
        if party.marker not in findings.observed:
            findings.add("the observer has seen nothing of an integrator: the run tests nothing", party.marker)
    # In a short run chance decides which of the rare ones succeed: each must be tried at least.
    is_short = findings.operations < _LONG
    least = max(1, findings.operations // 2_000)
    for operation in operations:
        needs_steps = (is_short or operation.name in _NEED_EARLIER_STEPS) and findings.replies[operation.name]
        if findings.successes[operation.name] < least and not needs_steps:
            findings.add(
                f"{operation.name}: fewer than {least} replies of success, so it is not tested",
                f"{findings.successes[operation.name]} of {dict(findings.replies[operation.name])}",
            )


def _check_seen(findings: Findings, parties: Sequence[Party], stored: dict[str, Any]) -> None:
    """Check that each execution that a reply has named belongs to the caller."""
    integrators = {party.integrator: party.marker for party in parties}
    creators = {run: party.marker for party in parties for run in party.created}
    for (marker, execution_id), where in findings.seen.items():
        owner = integrators.get(stored.get(execution_id, {}).get("integrator", "")) or creators.get(execution_id)
        if owner is not None and owner != marker:
            operation, _, example = where.partition("\0")
            findings.add(f"{operation}: a reply names a run of the other integrator", f"{execution_id} in {example}")
    for execution_id in parties[0].created & parties[1].created:
        findings.add("both integrators were told that they have created one run", execution_id)


def _check_runs(findings: Findings, party: Party, stored: dict[str, Any]) -> None:
    """Check that the integrator has all runs that it created and no other, and that nobody else has touched them."""
    own = {run: document for run, document in stored.items() if document["integrator"] == party.integrator}
    for run in sorted(own.keys() - party.created)[:3]:
        findings.add("a run that its integrator has not created", str(own[run]))
    for run in sorted(party.created - own.keys())[:3]:
        findings.add("a run is not stored under the integrator that created it", str(stored.get(run)))
    for run in (party.created - party.cancelled) & stored.keys():
        if stored[run].get("cancel") or stored[run]["status"] in {"cancelled", "cancelling"}:
            findings.add("a run was cancelled that its integrator has not cancelled", str(stored[run]))
    for run, document in stored.items():
        origin = document.get("retry_of")
        if origin in party.created and run not in party.created:
            findings.add("a run was retried by somebody else than its integrator", f"{run} of {origin}")


def _check_named(stack: Stack, findings: Findings, party: Party) -> None:
    """Check that the integrator's consumers and baskets are as its last write of each has left them."""
    key = next(each.key for each in party.credentials if each.label == "author")
    headers = {"Authorization": f"Bearer {key}"}

    def get(path: str) -> dict[str, Any]:
        response = None

        def is_available() -> bool:
            nonlocal response
            response = requests.get(f"{stack.url}{path}", headers=headers, timeout=10)
            return response.status_code == 200

        wait_until(is_available, 20, f"GET {path} replies")
        assert response is not None
        body: dict[str, Any] = response.json()
        return body

    consumers = {each["consumer"]: each["cursor"] for each in get("/consumers")["consumers"]}
    baskets = {each["name"]: each["description"] for each in get("/baskets")["baskets"]}
    shared = {name for name in baskets if not name.startswith(("z", "common-"))}
    _compare(findings, "consumer", consumers, {k: v for each in party.writers for k, v in each.consumers.items()})
    _compare(
        findings,
        "basket",
        {name: text for name, text in baskets.items() if name not in shared},
        {k: v for each in party.writers for k, v in each.baskets.items()},
    )


def _compare(findings: Findings, kind: str, found: dict[str, str], expected: dict[str, str]) -> None:
    for name in sorted(found.keys() - expected.keys())[:3]:
        findings.add(f"a {kind} that its integrator has not made", name)
    for name in sorted(expected.keys() - found.keys())[:3]:
        findings.add(f"a {kind} is gone that its integrator has not deleted", name)
    for name in sorted(expected.keys() & found.keys()):
        if found[name] != expected[name]:
            findings.add(f"a {kind} was changed by somebody else", f"{name}: {found[name]}, not {expected[name]}")
