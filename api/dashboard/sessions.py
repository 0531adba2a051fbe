"""Sessions of the dashboard: a random cookie, and in Redis the id of the key that logged in; never the key itself.

The cookie is HttpOnly and SameSite=Strict, and no route of the API takes it. Every form has a token that is derived
from the cookie, so no other site can send one. A session ends with its key: when that is revoked or expires, after
twelve hours, or when Redis loses it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Final

import flask
import redis
from flask import request

from api.auth.client_address import is_client_in
from api.auth.key_cache import KeyCache
from api.dashboard.internal_api import identify
from api.http.version_prefix import is_trusted_proxy, request_prefix
from shared.bootstrap import Services
from shared.domain.access.caller import LOCAL_CALLER, Caller
from shared.errors import Forbidden, Unavailable

COOKIE: Final = "bucket_session"
LIFETIME_S: Final = 12 * 3600
_KEY_PREFIX: Final = "metrics:session:"  # under a prefix that the ACL of earlier releases grants
_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a request; ``caller`` is None while nobody is logged in. ``is_new``: its cookie is not set yet."""

    id: str
    caller: Caller | None
    is_new: bool

    @property
    def csrf_token(self) -> str:
        """The token of this session's forms."""
        return hashlib.sha256(f"csrf {self.id}".encode()).hexdigest()


class Sessions:
    """Finds the session of a request, begins and ends sessions."""

    def __init__(self, services: Services, keys: KeyCache) -> None:
        self._redis = services.redis
        self._clock = services.clock
        self._keys = keys
        self._requires_key = services.settings.requires_key

    @property
    def requires_key(self) -> bool:
        """Whether a key is needed to see anything."""
        return self._requires_key

    def current(self) -> Session:
        """Return the session of this request, a new one without a caller if it brings none."""
        cookie = request.cookies.get(COOKIE, "")
        is_new = len(cookie) != 2 * _ID_BYTES or not cookie.isalnum()
        session_id = secrets.token_hex(_ID_BYTES) if is_new else cookie
        if not self._requires_key:
            return Session(session_id, LOCAL_CALLER, is_new)
        return Session(session_id, None if is_new else self._caller(session_id), is_new)

    def check_form(self, session: Session) -> None:
        """Raise Forbidden unless the form of this request was made for this session, by a page of this origin."""
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        is_right = hmac.compare_digest(request.form.get("csrf_token", "").encode(), session.csrf_token.encode())
        if site != "same-origin" or session.is_new or not is_right:
            raise Forbidden("this form is too old or of another page, so nothing was done; load the page again")

    def log_in(self, key: str) -> Session:
        """Begin a session for a key; raises ApiRefused if the key is wrong, and Forbidden for a token."""
        key_id = identify(key)["key_id"]
        if key_id is None:
            raise Forbidden("the dashboard takes keys only, not tokens of an outside issuer")
        session_id = secrets.token_hex(_ID_BYTES)
        try:
            self._redis.set(_store_key(session_id), str(key_id), ex=LIFETIME_S)
        except redis.RedisError as error:
            raise Unavailable("Redis is away, and sessions are kept there; try again in a moment") from error
        return Session(session_id, self._caller(session_id), is_new=True)

    def log_out(self, session: Session) -> None:
        """End a session."""
        try:
            self._redis.delete(_store_key(session.id))
        except redis.RedisError as error:
            raise Unavailable("Redis is away, so the session could not be ended; try again in a moment") from error

    def set_cookie(self, response: flask.Response, session: Session) -> None:
        """Set the cookie of a new session."""
        forwarded = request.environ.get("HTTP_X_FORWARDED_PROTO", "")
        is_https = request.is_secure or (
            forwarded.strip().lower() == "https" and is_trusted_proxy(request.environ.get("REMOTE_ADDR", ""))
        )
        response.set_cookie(
            COOKIE, session.id, httponly=True, samesite="Strict", secure=is_https, path=f"{request_prefix()}/"
        )

    def _caller(self, session_id: str) -> Caller | None:
        try:
            key_id: Any = self._redis.get(_store_key(session_id))
        except redis.RedisError as error:
            raise Unavailable("Redis is away, and sessions are kept there; try again in a moment") from error
        key = None if key_id is None else self._keys.get(key_id.decode())
        if key is None or key.revoked_at is not None or self._clock.now() >= key.expires_at:
            return None
        return key.caller() if key.networks is None or is_client_in(key.networks) else None


def logged_in_caller() -> Caller:
    """Return who makes this request; raises Forbidden if nobody is logged in, which no page is asked then."""
    session: Session = flask.g.session
    if session.caller is None:
        raise Forbidden("nobody is logged in")
    return session.caller


def _store_key(session_id: str) -> str:
    return _KEY_PREFIX + hashlib.sha256(session_id.encode()).hexdigest()
