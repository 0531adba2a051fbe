"""The caller of the current request, as the authentication found it; every subject reads it here."""

from __future__ import annotations

from typing import Final

from flask.globals import app_ctx

from shared.domain.access.caller import Caller, Permission
from shared.errors import Forbidden

_HOLDERS: Final = {
    Permission.READ_PAYLOADS: "a role that submits runs, or a key with payloads: true",
    Permission.SUBMIT: "the role integrator, operator, author or admin",
    Permission.CONSUME: "the role integrator, operator, author or admin",
    Permission.OPERATE: "the role operator or admin",
    Permission.WRITE_BASKETS: "the role author or admin",
    Permission.READ_AUDIT: "the role auditor or admin",
    Permission.ADMINISTER: "the role admin",
}


def current_caller() -> Caller:
    """Return who makes this request; on a public route everyone is the same caller."""
    caller: Caller = app_ctx.g.caller
    return caller


def check_may(caller: Caller, permission: Permission) -> None:
    """Raise Forbidden, with what is missing, if the role of ``caller`` does not permit it."""
    if not caller.may(permission):
        raise Forbidden(f"this needs {_HOLDERS[permission]}; yours is {caller.role}")
