"""The name of a run in Redis: with its integrator, so that a look-up for one never finds the run of another.

A run of the default integrator is named by its id alone, as in the releases that knew no other. No id and no
integrator's name has a slash or a space.
"""

from __future__ import annotations

from shared.domain.execution import PUBLIC_INTEGRATOR


def qualified_id(integrator: str, execution_id: str) -> str:
    """Return the name under which the view of a run is stored, and its waiters are woken."""
    return f"{qualified_prefix(integrator)}{execution_id}"


def qualified_prefix(integrator: str) -> str:
    """Return what stands before the id in the names of an integrator's runs."""
    return "" if integrator == PUBLIC_INTEGRATOR else f"{integrator}/"
