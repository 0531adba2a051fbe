"""Where routes stand: at the root, and again under a version; and what a request said after its path."""

from __future__ import annotations

from typing import Final

import flask
from flask import request

from api.body import Blueprint
from api.problems import Api
from api.queries import text
from shared.domain.execution import LINES_SHOWN
from shared.errors import ValidationFailed

PREFIX: Final = "/api/v1"
LIMIT_MAX: Final = 1_000
_SEQ_MAX: Final = 2**53


def register(app: flask.Flask, api: Api, blueprint: Blueprint, *, versioned: bool = True) -> None:
    """Add routes at the root, where the contract's text finds them, and again under the version."""
    api.register_blueprint(blueprint)
    if versioned:
        app.register_blueprint(blueprint, url_prefix=PREFIX, name=f"v1_{blueprint.name}")


def prefix() -> str:
    """Answer the prefix under which this request came, which the addresses in its answer keep."""
    return PREFIX if request.path.startswith(f"{PREFIX}/") else ""


def whole_number(name: str, *, least: int, most: int) -> int | None:
    """Answer a query parameter that is a whole number, None where it is absent; raises ValidationFailed."""
    told = text(name)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 20 and least <= int(told) <= most):  # noqa: PLR2004
        fault = {"parameter": name, "message": f"must be a whole number from {least} to {most}"}
        raise ValidationFailed(f"{name} {fault['message']}", details=[fault])
    return int(told)


def limit() -> int:
    """Answer how many rows this request asks for."""
    return whole_number("limit", least=1, most=LIMIT_MAX) or LINES_SHOWN


def after() -> int | None:
    """Answer the ``seq`` beyond which this request asks for log lines."""
    return whole_number("after", least=0, most=_SEQ_MAX)
