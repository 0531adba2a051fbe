"""Prefix of the API's URLs: ``/api/v1``, under which each route is registered again, and that of a trusted proxy."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import flask
from flask import request

from api.http.problems import ProblemApi
from api.http.request_body import Blueprint

VERSION_PREFIX: Final = "/api/v1"
TRUSTED_PROXIES: Final = "BUCKET_TRUSTED_PROXIES"  # the key in the configuration of the application
# Whole segments of a path: never another host (//host) and never a way up (/..).
_FORWARDED_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,64}){1,8}", re.ASCII)


def register_routes(app: flask.Flask, api: ProblemApi, blueprint: Blueprint, *, is_versioned: bool = True) -> None:
    """Register routes at the root, as the contract's text has them, and again under the version prefix."""
    api.register_blueprint(blueprint)
    if is_versioned:
        app.register_blueprint(blueprint, url_prefix=VERSION_PREFIX, name=f"v1_{blueprint.name}")


def request_prefix() -> str:
    """Return the prefix of this request's path, as the caller sees it; the URLs in its response keep it."""
    version_prefix = VERSION_PREFIX if request.path.startswith(f"{VERSION_PREFIX}/") else ""
    header = request.environ.get("HTTP_X_FORWARDED_PREFIX")
    return version_prefix if header is None else _forwarded_prefix(header) + version_prefix


def _forwarded_prefix(header: str) -> str:
    """Return the prefix that a trusted proxy took off the path: of several proxies, all, the outer one first.

    It is empty if the peer is not trusted, or if the header is no path.
    """
    prefix = "".join(part.strip().rstrip("/") for part in header.split(","))
    return (
        prefix
        if is_trusted_proxy(request.environ.get("REMOTE_ADDR", "")) and _FORWARDED_PREFIX.fullmatch(prefix)
        else ""
    )


def is_trusted_proxy(peer: str) -> bool:
    """Return whether the address ``peer`` is in ``BUCKET_TRUSTED_PROXIES``."""
    networks = flask.current_app.config.get(TRUSTED_PROXIES, ())
    if not networks:
        return False
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:  # a peer without an address, on a Unix socket
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)
