"""Version prefix of the API: each route is registered at the root and again under ``/api/v1``."""

from __future__ import annotations

from typing import Final

import flask
from flask import request

from api.http.problems import ProblemApi
from api.http.request_body import Blueprint

VERSION_PREFIX: Final = "/api/v1"


def register_routes(app: flask.Flask, api: ProblemApi, blueprint: Blueprint, *, is_versioned: bool = True) -> None:
    """Register routes at the root, as the contract's text has them, and again under the version prefix."""
    api.register_blueprint(blueprint)
    if is_versioned:
        app.register_blueprint(blueprint, url_prefix=VERSION_PREFIX, name=f"v1_{blueprint.name}")


def request_prefix() -> str:
    """Return the version prefix of this request's path; the URLs in its response keep it."""
    return VERSION_PREFIX if request.path.startswith(f"{VERSION_PREFIX}/") else ""
