"""Where routes stand: at the root, and again under a version."""

from __future__ import annotations

from typing import Final

import flask
from flask import request

from api.http.problems import ProblemApi
from api.http.request_body import Blueprint

VERSION_PREFIX: Final = "/api/v1"


def register_routes(app: flask.Flask, api: ProblemApi, blueprint: Blueprint, *, is_versioned: bool = True) -> None:
    """Add routes at the root, where the contract's text finds them, and again under the version."""
    api.register_blueprint(blueprint)
    if is_versioned:
        app.register_blueprint(blueprint, url_prefix=VERSION_PREFIX, name=f"v1_{blueprint.name}")


def request_prefix() -> str:
    """Answer the prefix under which this request came, which the addresses in its answer keep."""
    return VERSION_PREFIX if request.path.startswith(f"{VERSION_PREFIX}/") else ""
