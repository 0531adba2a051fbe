"""Settings: the environment variables, read once into one frozen value; all faults are reported together."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import environs
import redis
from marshmallow import ValidationError, validate
from redis.connection import AbstractConnection

from shared.errors import SettingsError
from shared.outbound_hosts import EXAMPLE, OutboundHosts, parse_outbound_hosts
from shared.suggestions import LOOSE_SIMILARITY_MIN, closest_matches

# What redis-py takes from the query of a URL: it fails on any other name when it connects.
_REDIS_OPTIONS: Final = frozenset(
    name
    for kind in (redis.Connection, redis.UnixDomainSocketConnection, redis.SSLConnection, AbstractConnection)
    for name in inspect.signature(kind).parameters
)
_CERT_REQS: Final = ("required", "optional", "none")
_RATE: Final = validate.Range(min=0, max=10_000, min_inclusive=False)
_SECONDS: Final = validate.Range(min=0, max=31_536_000, min_inclusive=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of this process; names of values in seconds end in ``_s``."""

    host: str = "127.0.0.1"
    port: int = 8000
    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    mongodb_url: str = field(default="mongodb://127.0.0.1:27017/bucket", repr=False)
    environment: str = "development"
    api_processes: int = 2
    api_threads: int = 16
    held_polls: int = 100
    backlog_max: int = 100_000
    worker_concurrency: int = 4
    lease_s: float = 30.0
    heartbeat_s: float = 10.0
    handoff_s: float = 5.0
    losses_max: int = 3
    grace_s: float = 10.0
    drain_s: float = 20.0
    retention_days: int | None = None
    agents_dir: Path | None = None
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    outbound_hosts: OutboundHosts = field(default_factory=OutboundHosts)
    outbound_rate: float | None = None
    outbound_proxy: str = field(default="", repr=False)
    log_level: str = "INFO"
    faults: str = ""

    @classmethod
    def from_environ(cls) -> Settings:
        """Read the settings from the environment variables; a missing variable keeps its default.

        Raises SettingsError, which names every variable that is wrong, with what it should be.
        """
        env = environs.Env(eager=False)
        values = {name: reader(env, variable) for name, (variable, reader) in VARIABLES.items()}
        try:
            env.seal()
        except environs.EnvValidationError as error:
            raise SettingsError(_format_faults(error.error_messages)) from error
        settings = cls(**{name: value for name, value in values.items() if value is not None})
        if faults := settings._contradictions():
            raise SettingsError("\n".join(faults))
        return settings

    def _contradictions(self) -> list[str]:
        faults = []
        if self.heartbeat_s * 2 > self.lease_s:
            faults.append(
                f"BUCKET_HEARTBEAT_S={self.heartbeat_s:g} must be at most half of BUCKET_LEASE_S={self.lease_s:g}, "
                "or a lease would run out between two heartbeats"
            )
        if self.agents_dir is not None and not self.agents_dir.is_dir():
            faults.append(f"BUCKET_AGENTS_DIR={self.agents_dir} is not a directory")
        return faults


_OF_THE_CLIENT: Final = ("BUCKET_URL", "BUCKET_API_KEY")
"""Variables of ``client/``, which a shell may have set when a server is started from it."""


def warn_about_unknown_variables() -> None:
    """Log a warning for each unknown ``BUCKET_*`` variable, with the name that was probably meant."""
    for variable, meant in unknown_variables(os.environ).items():
        hint = f"; did you mean {meant}?" if meant else ""
        logging.getLogger(__name__).warning("the setting %s is not known%s", variable, hint)


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return each unknown ``BUCKET_*`` variable, with the one that was probably meant, if any."""
    known_names = [variable for variable, _ in VARIABLES.values()] + list(_OF_THE_CLIENT)
    return {
        name: next(iter(closest_matches(name, known_names, similarity_min=LOOSE_SIMILARITY_MIN)), None)
        for name in environ
        if name.startswith("BUCKET_") and name not in known_names
    }


def _format_faults(messages: list[str] | Mapping[str, list[str]]) -> str:
    faults = messages if isinstance(messages, Mapping) else {"settings": messages}
    return "\n".join(f"{name}: {' '.join(map(str, texts))}" for name, texts in sorted(faults.items()))


_Reader = Callable[[environs.Env, str], Any]


def _str_reader(check: Callable[[str], Any] | None = None) -> _Reader:
    return lambda env, variable: env.str(variable, None, validate=check)


def _int_reader(minimum: int = 1, maximum: int | None = None) -> _Reader:
    return lambda env, variable: env.int(variable, None, validate=validate.Range(min=minimum, max=maximum))


def _read_seconds(env: environs.Env, variable: str) -> float | None:
    return env.float(variable, None, validate=_SECONDS)


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


def _read_networks(env: environs.Env, variable: str) -> tuple[IPv4Network | IPv6Network, ...] | None:
    texts = env.list(variable, None, validate=_check_networks)
    return None if texts is None else tuple(ipaddress.ip_network(text.strip()) for text in texts)


def _check_networks(texts: list[str]) -> None:
    try:
        for text in texts:
            ipaddress.ip_network(text.strip())
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
    "log_level": ("BUCKET_LOG_LEVEL", _str_reader(validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"]))),
    "faults": ("BUCKET_FAULTS", _str_reader()),
}
