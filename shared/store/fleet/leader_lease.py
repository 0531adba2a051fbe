"""The leader lease of the reconcilers, as others see it: until when one leads.

It is the truth about the reconciler: one of any release holds it, and it needs no Redis.
"""

from __future__ import annotations

from datetime import datetime

from shared.store.database import Database, db_call


def leads_until(database: Database) -> datetime | None:
    """Return until when a reconciler leads, or led last, in the store's time; None if none ever has."""
    with db_call(database, writes=False):
        lease = database.collection("leases").find_one({"_id": "reconciler"}, {"until": 1})
    return None if lease is None else lease["until"]
