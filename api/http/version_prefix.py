"""Where routes stand: at the root, and again under a version."""

from __future__ import annotations

from typing import Final

import flask
from flask import request

from api.http.problems import Api
from api.http.request_body import Blueprint

PREFIX: Final = "/api/v1"


def register(app: flask.Flask, api: Api, blueprint: Blueprint, *, versioned: bool = True) -> None:
    """Add routes at the root, where the contract's text finds them, and again under the version."""
    api.register_blueprint(blueprint)
    if versioned:
        app.register_blueprint(blueprint, url_prefix=PREFIX, name=f"v1_{blueprint.name}")


def prefix() -> str:
    """Answer the prefix under which this request came, which the addresses in its answer keep."""
    return PREFIX if request.path.startswith(f"{PREFIX}/") else ""
