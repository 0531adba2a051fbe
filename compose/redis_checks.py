"""Checks a Redis, Valkey or Redict: that it replies and can serve Bucket, and what should be changed about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError

from compose.operator_error import OperatorError
from compose.server_report import NO_REPLY_FIX, ServerReport, require_version, warnings_of_known_holes
from shared.live import redis_client
from shared.live.signals.pubsub import WAKEUP_CHANNEL
from shared.queue.write_check import check_writable

REDIS_MIN: Final = (6, 2)
EVICTION_POLICY: Final = "volatile-ttl"
KEYS: Final = (
    "default", "long", "_kombu.binding.default", "execution:doctor", "output:doctor", "durations:doctor",
    "metrics:doctor", "logs", "workers", "accepted:doctor", "cancel:doctor", "write-check",
    "provider:doctor", "answer:doctor",
)  # fmt: skip
"""A key of each kind that Bucket uses."""

_FORKS: Final = ("valkey", "redict")  # as redis_version they report the Redis that they are compatible with
_FIXED: Final = {
    "Redis": {(8, 6): 3},  # CVE-2026-23479
    "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},  # CVE-2025-49844
}
_TIMEOUT_S: Final = 3.0
_CERTIFICATE_FIX: Final = (
    "name the host as its certificate does, and its authority by ?ssl_ca_certs=/path/to/ca.pem or SSL_CERT_FILE"
)


def check_redis(url: str, *, is_production: bool = False, minimum: tuple[int, ...] = REDIS_MIN) -> ServerReport:
    """Return the version of the server at ``url``, of a fork under its own name, and what should be changed.

    Raises OperatorError if it does not reply, is older than ``minimum`` (of a fork, the Redis it is compatible with),
    refuses writes, is a replica, or runs in cluster mode.
    """
    try:
        with closing(redis_client.connect(url, timeout_s=_TIMEOUT_S)) as client:
            client.ping()
            facts = _read_facts(client)
            name, version = _name_and_version(facts)
            require_version("Redis", facts.get("redis_version", version), minimum)
            _require_primary(facts)
            _require_writable(client)
            warnings = [*_warnings(facts), *_missing_rights(client)]
    except (redis.RedisError, OSError, ValueError, TypeError) as error:
        fix = _CERTIFICATE_FIX if "certificate verify failed" in str(error) else NO_REPLY_FIX
        raise OperatorError(f"the Redis of REDIS_URL does not reply: {error}", fix=fix) from error
    warnings += warnings_of_known_holes(name, version, _FIXED[name]) if name in _FIXED else []
    if is_production and not (has_password(url) or url.startswith("unix://")):
        warnings.append("it asks for no password: whoever reaches it can read and change every run")
    return ServerReport(version if name == "Redis" else f"{name} {version}", tuple(warnings))


def has_password(url: str) -> bool:
    """Return whether a Redis URL has a password, or names a client certificate."""
    options = redis_client.connection_options(url)
    return bool(options.get("password") or options.get("ssl_certfile"))


def _read_facts(client: redis.Redis) -> dict[str, str]:
    """Return what the server says of itself: INFO or, if that is refused, the little that HELLO says."""
    try:
        info: Mapping[str, Any] = client.info()
    except NoPermissionError:
        hello: Any = client.execute_command("HELLO")  # type: ignore[no-untyped-call]
        pairs = hello.items() if isinstance(hello, Mapping) else zip(hello[::2], hello[1::2], strict=True)
        return {_text(name): _text(value) for name, value in pairs}
    return {name: str(value) for name, value in info.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _name_and_version(facts: Mapping[str, str]) -> tuple[str, str]:
    for fork in _FORKS:
        if f"{fork}_version" in facts:
            return fork.capitalize(), facts[f"{fork}_version"]
    return facts.get("server", "redis").capitalize(), facts.get("redis_version") or facts["version"]


def _require_primary(facts: Mapping[str, str]) -> None:
    mode = facts.get("server_mode") or facts.get("redis_mode") or facts.get("mode")
    if mode == "cluster":
        raise OperatorError(
            "the Redis of REDIS_URL runs in cluster mode, in which Celery's queues do not work",
            fix="use one server without cluster mode, or a primary with replicas (docs/deploy.md)",
        )
    if mode == "sentinel":
        raise OperatorError(
            "REDIS_URL names a Sentinel, which holds no data",
            fix="name the primary, or a proxy that leads to it (docs/deploy.md)",
        )
    if facts.get("role") in {"slave", "replica"}:
        raise OperatorError(
            "the Redis of REDIS_URL is a read-only replica",
            fix="name the primary (of a managed service not the reader endpoint), or a proxy that leads to it",
        )


def _require_writable(client: redis.Redis) -> None:
    try:
        check_writable(client)
    except redis.ResponseError as error:
        raise OperatorError(
            f"the Redis of REDIS_URL refuses writes: {error}",
            fix=f"give it room (maxmemory, maxmemory-policy {EVICTION_POLICY}) and Bucket's user its rights "
            "(docs/deploy.md), or see why it cannot save its snapshot",
        ) from error


def _warnings(facts: Mapping[str, str]) -> Iterator[str]:
    policy = facts.get("maxmemory_policy")
    if policy is None:
        yield "INFO is refused, so that its policy was not checked: grant +info"
    elif policy != EVICTION_POLICY:
        loss = "it evicts messages too" if policy.startswith("allkeys") else "once it is full, runs are refused"
        yield f"maxmemory-policy is {policy}: {loss}; set {EVICTION_POLICY}, which evicts only what expires"


def _missing_rights(client: redis.Redis) -> Iterator[str]:
    """Try each right, without changing anything, and yield those that the user lacks."""
    lacking = [key for key in KEYS if _is_refused(client, "key", "LTRIM", key, "0", "-1")]
    if lacking:
        yield f"the user may not write the keys {', '.join(lacking)}: see the ACL line in docs/deploy.md"
    if _is_refused(client, "", "PUBLISH", WAKEUP_CHANNEL, ""):
        yield f"the user may not publish on {WAKEUP_CHANNEL}: no held poll is woken; grant &{WAKEUP_CHANNEL}"
    if _is_refused(client, "", "EVAL", "return 1", "0"):
        yield "the user may not run scripts: no poll is served from Redis; grant +eval"


def _is_refused(client: redis.Redis, about: str, *command: str) -> bool:
    try:
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    except NoPermissionError as error:
        return about in str(error)  # else the user lacks LTRIM itself, which Bucket does not need
    except redis.ResponseError:  # the key holds another type: the right was there
        return False
    return False
