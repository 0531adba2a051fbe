"""Authentication: before each request, finds out who calls and whether its role permits the route.

Credentials come from ``Authorization: Bearer`` alone, and stand in no log line and no reply.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any, Final, Protocol

import flask
import structlog

from api.auth.client_address import is_client_in
from api.auth.current_caller import check_may
from api.auth.integration_states import IntegrationStates
from api.auth.key_cache import KeyCache
from api.auth.route_permissions import permissions_by_rule, rules_that_start_runs
from api.auth.verified_headers import VerifiedHeaders, VerifiedKey
from api.http.middleware import INTERNAL_CALLER, BeforeRoute
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.api_key import ApiKey
from shared.domain.access.caller import LOCAL_CALLER, PUBLIC_CALLER, Caller, Permission
from shared.domain.access.key_format import SALT_BYTES, hash_key, key_id_of, pepper_id_of
from shared.errors import Forbidden, Unauthenticated, Unavailable

KEY_PREFIX: Final = "bkt_"
_OPEN: Final = frozenset({Permission.PUBLIC, Permission.SESSION})
_NO_SALT: Final = bytes(SALT_BYTES)
_NO_HASH: Final = bytes(32)


class TokenVerifier(Protocol):
    """The port of what checks a token of an outside issuer."""

    def verify(self, token: str, now: datetime) -> Caller:
        """Return who calls with ``token``; raises Unauthenticated or Forbidden."""


class Authenticator:
    """Finds the caller of a request by its key or token."""

    def __init__(
        self,
        services: Services,
        keys: KeyCache,
        tokens: TokenVerifier | None = None,
        *,
        integrations: IntegrationStates,
    ) -> None:
        self._integrations = integrations
        self._services = services
        self._keys = keys
        self._verified = VerifiedHeaders(keys)
        self._tokens = tokens
        self._pepper = services.settings.key_pepper.encode()
        self._metrics_networks = services.settings.metrics_networks

    def hook(self, app: flask.Flask, everyone: Caller | None = None) -> BeforeRoute:
        """Return what finds the caller of each request of ``app``; call it after all routes are registered.

        With ``everyone`` no request needs a key: that caller makes each.
        """
        permissions = permissions_by_rule(app)
        if everyone is None and not self._services.settings.requires_key:
            everyone = LOCAL_CALLER
        identify = self._identify if everyone is None else lambda _request, _g, _permission: everyone
        starts_runs = rules_that_start_runs(app) if everyone is None else frozenset()

        def authenticate(request: flask.Request, g: Any) -> None:
            rule = request.url_rule
            if rule is None or request.method == "OPTIONS":
                g.caller = PUBLIC_CALLER  # nothing is here but a refusal, or the list of methods
                return
            route = rule.rule, request.method
            permission = permissions[route]
            g.caller = identify(request, g, permission)
            if route in starts_runs:
                self._integrations.check_may_start_runs(g.caller, is_submit=permission is Permission.SUBMIT)

        return authenticate

    def _identify(self, request: flask.Request, g: Any, permission: Permission) -> Caller:
        internal: Caller | None = request.environ.get(INTERNAL_CALLER)
        if internal is not None:
            g.caller = internal
            check_may(internal, permission)
            return internal
        header = request.environ.get("HTTP_AUTHORIZATION")
        if permission in _OPEN or (header is None and self._needs_no_key(permission)):
            return PUBLIC_CALLER
        if header is None:
            raise Unauthenticated
        caller = g.caller = self._caller(header)  # also for the logs, if its right is missing
        check_may(caller, permission)
        return caller

    def _needs_no_key(self, permission: Permission) -> bool:
        if permission is not Permission.METRICS:
            return permission is Permission.OPTIONAL
        return is_client_in(self._metrics_networks)

    def _caller(self, header: str) -> Caller:
        now_s = boottime_s()
        verified = self._verified.find(header, now_s)
        if verified is not None:
            return self._use(verified, now_s)
        scheme, _, credentials = header.partition(" ")
        credentials = credentials.strip(" \t")  # not control characters and the like, which str.strip() takes too
        if scheme.lower() != "bearer" or not credentials:
            raise Unauthenticated("Authorization must be: Bearer, a space, and the key")
        now = self._services.clock.now_or_none()
        if now is None:
            raise Unavailable("MongoDB does not answer, and no key can be checked; send the same request again")
        if not credentials.startswith(KEY_PREFIX) and self._tokens is not None:
            return self._tokens.verify(credentials, now)
        key = self._check_key(credentials, now)
        return self._use(self._verified.add(header, key, now, now_s), now_s)

    def _use(self, verified: VerifiedKey, now_s: float) -> Caller:
        key = verified.key
        if key.networks is not None and not is_client_in(key.networks):
            raise Forbidden("this key is not valid from this address; its admin can name the network")
        self._keys.record_use(key.id, now_s)
        return verified.caller

    def _check_key(self, text: str, now: datetime) -> ApiKey:
        key_id = key_id_of(text)
        if key_id is None:
            raise Unauthenticated("this is no key of Bucket: it was mistyped or cut; a key begins with bkt_")
        key = self._keys.get(key_id)
        # The same work whether or not there is such a key.
        salt, key_hash = (_NO_SALT, _NO_HASH) if key is None else (key.salt, key.key_hash)
        is_right = hmac.compare_digest(hash_key(text, salt, self._pepper), key_hash)
        if key is None or not is_right:
            if key is not None and key.pepper_id != pepper_id_of(self._pepper):
                structlog.get_logger().warning("a key was made with another BUCKET_KEY_PEPPER", key_id=key.id)
            raise Unauthenticated("this key is not known")
        if key.revoked_at is not None:
            raise Unauthenticated(f"the key {key.id} was revoked; ask an admin of Bucket for a new one")
        if now >= key.expires_at:
            raise Unauthenticated(f"the key {key.id} has expired; ask an admin of Bucket for a new one")
        return key
