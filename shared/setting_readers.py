"""Readers of the settings: how the text of each environment variable becomes a value, and what is wrong with it."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import environs
import redis
from marshmallow import ValidationError, validate
from redis.connection import AbstractConnection

from shared.limits import Quotas, RateLimits, parse_quotas, parse_rate_limits
from shared.networks import Network, parse_network
from shared.outbound_hosts import EXAMPLE, OutboundHosts, parse_outbound_hosts
from shared.sealing import KeyRing, parse_key_ring

# What redis-py takes from the query of a URL: it fails on any other name when it connects.
_REDIS_OPTIONS: Final = frozenset(
    name
    for kind in (redis.Connection, redis.UnixDomainSocketConnection, redis.SSLConnection, AbstractConnection)
    for name in inspect.signature(kind).parameters
)
JWT_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
    "EdDSA",
)
_CERT_REQS: Final = ("required", "optional", "none")
_RATE: Final = validate.Range(min=0, max=10_000, min_inclusive=False)
_SECONDS: Final = validate.Range(min=0, max=31_536_000, min_inclusive=False)

_PATH_SHOWN_CHARS: Final = 200
_NOT_EMPTY: Final = validate.Length(min=1, error="must not be empty")

_Reader = Callable[[environs.Env, str], Any]
_Parsed = TypeVar("_Parsed")


def _str_reader(check: Callable[[str], Any] | None = None) -> _Reader:
    return lambda env, variable: env.str(variable, None, validate=check)


def _int_reader(minimum: int = 1, maximum: int | None = None) -> _Reader:
    return lambda env, variable: env.int(variable, None, validate=validate.Range(min=minimum, max=maximum))


def _read_seconds(env: environs.Env, variable: str) -> float | None:
    return env.float(variable, None, validate=_SECONDS)


def _read_bool(env: environs.Env, variable: str) -> bool | None:
    return env.bool(variable, None)


def _read_list(env: environs.Env, variable: str) -> tuple[str, ...] | None:
    names = env.list(variable, None)
    return None if names is None else tuple(name.strip() for name in names if name.strip())


def _check_redis_url(url: str) -> None:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValidationError("is no Redis URL")
    options = dict(parse_qsl(urlsplit(url).query))
    if unknown := sorted(options.keys() - _REDIS_OPTIONS):
        raise ValidationError(f"{unknown[0]} is no option of a Redis URL")
    if (authorities := options.get("ssl_ca_certs")) is not None and not Path(authorities).is_file():
        raise ValidationError(f"the file of ssl_ca_certs, {authorities}, does not exist")
    asked = options.get("ssl_cert_reqs")
    if asked is not None and asked.removeprefix("CERT_").lower() not in _CERT_REQS:
        raise ValidationError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is an address of this machine itself, or ``localhost``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _read_networks(env: environs.Env, variable: str) -> tuple[Network, ...] | None:
    texts = env.list(variable, None, validate=_check_networks)
    return None if texts is None else tuple(parse_network(text.strip()) for text in texts)


def _check_networks(texts: list[str]) -> None:
    try:
        for text in texts:
            parse_network(text.strip())
    except ValueError as error:
        example = "10.0.0.7,10.1.0.0/16"
        raise environs.ValidationError(f"is no list of addresses and networks, such as {example}: {error}") from error


def _read_outbound_hosts(env: environs.Env, variable: str) -> OutboundHosts | None:
    texts = env.list(variable, None, validate=_check_outbound_hosts)
    return None if texts is None else parse_outbound_hosts(texts)


def _check_outbound_hosts(texts: list[str]) -> None:
    try:
        parse_outbound_hosts(texts)
    except ValueError as error:
        raise environs.ValidationError(f"is no list of hosts, such as {EXAMPLE}: {error}") from error


def _check_outbound_proxy(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_proxy = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_proxy = False
    if not is_proxy or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValidationError("is no URL of a proxy with its port, such as http://proxy.example.com:3128")


def _check_trace_url(template: str) -> None:
    try:
        parts = urlsplit(template)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.username or parts.password)
    except ValueError:
        is_url = False
    if not is_url or template.count("{trace_id}") != 1 or "{trace_id}" in parts.netloc:
        raise ValidationError(
            "is no URL with {trace_id} in it, such as http://jaeger.example.com:16686/trace/{trace_id}"
        )


def _read_jwt_algorithms(env: environs.Env, variable: str) -> tuple[str, ...] | None:
    names = env.list(variable, None, validate=_check_jwt_algorithms)
    return None if names is None else tuple(name.strip() for name in names)


def _check_jwt_algorithms(names: list[str]) -> None:
    wrong = [name.strip() for name in names if name.strip() not in JWT_ALGORITHMS]
    if wrong or not names:
        named = ", ".join(map(repr, wrong)) or "an empty list"
        raise environs.ValidationError(
            f"{named} is no asymmetric algorithm of signatures; choose from {', '.join(JWT_ALGORITHMS)}"
        )


def _check_jwks(location: str) -> None:
    if "://" not in location:
        return  # a file, which only the API reads
    try:
        parts = urlsplit(location)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValidationError("is no address") from None
    if not host or parts.scheme not in ("https", "http") or parts.fragment:
        raise ValidationError("is neither a file nor an https address")
    if "@" in parts.netloc:
        raise ValidationError("must have no user and no password")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValidationError("must be an https address: who can change the keys on the way can make tokens")


def _read_rate_limits(env: environs.Env, variable: str) -> RateLimits | None:
    return _parse_json_setting(env, variable, parse_rate_limits)


def _read_quotas(env: environs.Env, variable: str) -> Quotas | None:
    return _parse_json_setting(env, variable, parse_quotas)


def _parse_json_setting(env: environs.Env, variable: str, parse: Callable[[str], _Parsed]) -> _Parsed | None:
    """Return what ``parse`` makes of a setting, which is JSON, or the path of a file with it."""

    def check(text: str) -> None:
        try:
            parse(_json_text(text))
        except ValueError as error:
            raise ValidationError(str(error)) from error

    text = env.str(variable, None, validate=check)
    try:
        return None if not text else parse(_json_text(text))
    except ValueError:
        return None  # reported by the check above


def _json_text(text: str) -> str:
    """Return ``text`` if it may be a JSON object, else what the file of that path has."""
    if text.lstrip().startswith("{") or not text.strip():
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except OSError as error:
        fault = f"{text[:_PATH_SHOWN_CHARS]!r}: {error.strerror}"
        raise ValueError(f"must be a JSON object, or the path of a file with one; {fault}") from error


def _read_key_ring(env: environs.Env, variable: str) -> KeyRing | None:
    text = env.str(variable, None, validate=_check_key_ring)
    return None if text is None else parse_key_ring(text)


def _check_key_ring(text: str) -> None:
    try:
        parse_key_ring(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


VARIABLES: Final[dict[str, tuple[str, _Reader]]] = {
    "host": ("HOST", _str_reader()),
    "port": ("PORT", _int_reader(0, 65_535)),
    "redis_url": ("REDIS_URL", _str_reader(_check_redis_url)),
    "mongodb_url": ("MONGODB_URL", _str_reader(validate.Regexp(r"mongodb(\+srv)?://", error="is no MongoDB URL"))),
    "environment": ("BUCKET_ENV", _str_reader(validate.OneOf(["development", "test", "production"]))),
    "api_processes": ("BUCKET_API_PROCESSES", _int_reader()),
    "api_threads": ("BUCKET_API_THREADS", _int_reader()),
    "held_polls": ("BUCKET_HELD_POLLS", _int_reader(0)),
    "backlog_max": ("BUCKET_BACKLOG_MAX", _int_reader()),
    "worker_concurrency": ("BUCKET_WORKER_CONCURRENCY", _int_reader()),
    "lease_s": ("BUCKET_LEASE_S", _read_seconds),
    "heartbeat_s": ("BUCKET_HEARTBEAT_S", _read_seconds),
    "handoff_s": ("BUCKET_HANDOFF_S", _read_seconds),
    "losses_max": ("BUCKET_LOSSES_MAX", _int_reader()),
    "grace_s": ("BUCKET_GRACE_S", _read_seconds),
    "drain_s": ("BUCKET_DRAIN_S", _read_seconds),
    "retention_days": ("BUCKET_RETENTION_DAYS", _int_reader()),
    "agents_dir": ("BUCKET_AGENTS_DIR", lambda env, variable: env.path(variable, None)),
    "cors_origins": ("BUCKET_CORS_ORIGINS", _read_list),
    "trusted_proxies": ("BUCKET_TRUSTED_PROXIES", _read_networks),
    "outbound_hosts": ("BUCKET_OUTBOUND_HOSTS", _read_outbound_hosts),
    "outbound_rate": ("BUCKET_OUTBOUND_RATE", lambda env, variable: env.float(variable, None, validate=_RATE)),
    "outbound_proxy": ("BUCKET_OUTBOUND_PROXY", _str_reader(_check_outbound_proxy)),
    "auth": ("BUCKET_AUTH", _str_reader(validate.OneOf(["off", "required"]))),
    "key_pepper": ("BUCKET_KEY_PEPPER", _str_reader(validate.Length(min=32, error="must have at least 32 characters"))),
    "integrations": ("BUCKET_INTEGRATIONS", _str_reader(validate.OneOf(["optional", "required"]))),
    "audit_reads": ("BUCKET_AUDIT_READS", _read_bool),
    "metrics_networks": ("BUCKET_METRICS_NETWORKS", _read_networks),
    "jwt_issuer": ("BUCKET_JWT_ISSUER", _str_reader()),
    "jwt_audience": ("BUCKET_JWT_AUDIENCE", _str_reader()),
    "jwt_jwks": ("BUCKET_JWT_JWKS", _str_reader(_check_jwks)),
    "jwt_algorithms": ("BUCKET_JWT_ALGORITHMS", _read_jwt_algorithms),
    "jwt_role_claim": ("BUCKET_JWT_ROLE_CLAIM", _str_reader(_NOT_EMPTY)),
    "jwt_integrator_claim": ("BUCKET_JWT_INTEGRATOR_CLAIM", _str_reader(_NOT_EMPTY)),
    "rate_limits": ("BUCKET_LIMITS", _read_rate_limits),
    "ratelimit_headers": ("BUCKET_RATELIMIT_HEADERS", _str_reader(validate.OneOf(["x", "draft"]))),
    "quotas": ("BUCKET_QUOTAS", _read_quotas),
    "encryption_keys": ("BUCKET_ENCRYPTION_KEYS", _read_key_ring),
    "encrypt_payloads": ("BUCKET_ENCRYPT_PAYLOADS", lambda env, variable: env.bool(variable, None)),
    "trace_url": ("BUCKET_TRACE_URL", _str_reader(_check_trace_url)),
    "log_level": ("BUCKET_LOG_LEVEL", _str_reader(validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]))),
    "faults": ("BUCKET_FAULTS", _str_reader()),
}
