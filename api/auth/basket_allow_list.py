"""The allow-list of a key: the only baskets that it may run, by their names; nothing else runs with such a key."""

from __future__ import annotations

from shared.domain.access.caller import Caller
from shared.errors import Forbidden


def check_basket_allowed(caller: Caller, name: str | None, *, otherwise: str = "a basket written inline") -> None:
    """Raise Forbidden if the key of ``caller`` has a list of baskets without ``name``.

    A ``name`` of None stands for what has no name to look for, as ``otherwise`` says.
    """
    if caller.baskets is not None and (name is None or name not in caller.baskets):
        subject = otherwise if name is None else f"the basket {name[:100]!r}"
        raise Forbidden(f"{subject} is not permitted: this key has a list of the only baskets that it may run")
