"""What replies and ``bucketd integrations`` show of an integration and its checklists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.domain.access.integration import Integration
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.timestamps import format_rfc3339

_NOT_IN_AUDIT: Final = frozenset({"history", "key", "key_expires_at"})
_MOVED: Final = ("status", "percentage", "key_id")


def integration_view(integration: Integration, *, with_history: bool = True) -> dict[str, Any]:
    """Return an integration as its admins see it; never a key."""
    details = integration.details
    view: dict[str, Any] = {
        "id": integration.id,
        "name": details.name,
        "status": str(integration.status),
        "percentage": integration.percentage,
        "use_case": details.use_case,
        "data_flow": details.data_flow,
        "agents": list(details.agents),
        "baskets": list(details.baskets),
        "volume": orjson.loads(details.volume),
        "contact": details.contact,
        "mapping_url": details.mapping_url,
        "key_id": integration.key_id,
        "updated_at": format_rfc3339(integration.updated_at),
    }
    if with_history:
        view["history"] = [
            {
                "action": str(move.action),
                "before": None if move.before is None else str(move.before),
                "after": str(move.after),
                "by": move.by,
                "at": format_rfc3339(move.at),
                "comment": move.comment,
            }
            for move in integration.history
        ]
    return view


def compliance_view(integration: Integration) -> dict[str, Any]:
    """Return how far the checklists of an integration are, and who said what of each item."""
    items = []
    for item in CHECKLIST_ITEMS.values():
        tick = integration.ticks.get(item.id)
        items.append(
            {
                "id": item.id,
                "checklist": str(item.checklist),
                "text": item.text,
                "done": tick is not None and tick.done,
                "by": None if tick is None else tick.by,
                "at": None if tick is None else format_rfc3339(tick.at),
            }
        )
    return {"percentage": integration.percentage, "items": items}


def audited_integration(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the audit log has of an integration: its definition, never a key."""
    return {name: value for name, value in view.items() if name not in _NOT_IN_AUDIT}


def audited_move(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a move may change of an integration, for the audit log."""
    return {name: view[name] for name in _MOVED}


def audited_compliance(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far the checklists are and which items are done, for the audit log."""
    return {"percentage": view["percentage"], "done": [item["id"] for item in view["items"] if item["done"]]}
