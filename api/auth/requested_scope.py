"""Whose objects a request means: those of its caller, or for an admin those of ``?integrator=``."""

from __future__ import annotations

from typing import Final

from api.http import query_params
from shared.domain.access.caller import Caller, Permission, Scope
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import Forbidden
from shared.ids import INTEGRATOR_PATTERN

INTEGRATOR_PARAMETER: Final = "integrator"


def requested_scope(caller: Caller) -> Scope:
    """Return the scope of a list: an admin's is narrowed by ``?integrator=``.

    Raises ValidationFailed, and Forbidden if another caller names an integrator that is not its own.
    """
    name = query_params.text(INTEGRATOR_PARAMETER)
    if name is not None and not INTEGRATOR_PATTERN.fullmatch(name):
        query_params.raise_invalid(INTEGRATOR_PARAMETER, "must be the name of an integrator")
    if name is None or name == caller.scope:
        return caller.scope
    if caller.scope is not None:
        raise Forbidden("the objects of another integrator need the role admin; leave integrator out, or name your own")
    return name


def requested_owner(caller: Caller) -> str:
    """Return the integrator that a named object belongs to: the caller's own, or for an admin that of ``?integrator=``.

    Raises Forbidden as :func:`requested_scope` does.
    """
    return requested_scope(caller) or caller.integrator


def basket_owner(caller: Caller) -> str:
    """Return whose baskets a request writes: an admin the shared ones or those of ``?integrator=``, else its own.

    Raises Forbidden for shared baskets if the caller is no admin.
    """
    if caller.may(Permission.ADMINISTER):
        return requested_scope(caller) or PUBLIC_INTEGRATOR
    owner = requested_owner(caller)
    if owner == PUBLIC_INTEGRATOR:
        raise Forbidden(f"the baskets of {owner!r} are shared by every integrator; writing them needs the role admin")
    return owner
