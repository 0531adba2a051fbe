"""Settings: the environment variables, read once into one frozen value; all faults are reported together."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

import environs

from shared.errors import SettingsError
from shared.limits import DEFAULT_RATE_LIMITS, Quotas, RateLimits
from shared.outbound_hosts import OutboundHosts
from shared.sealing import KeyRing
from shared.setting_readers import VARIABLES, is_loopback
from shared.suggestions import LOOSE_SIMILARITY_MIN, closest_matches


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
    auth: str = ""
    key_pepper: str = field(default="", repr=False)
    integrations: str = "optional"
    metrics_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_jwks: str = ""
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    jwt_role_claim: str = "role"
    jwt_integrator_claim: str = "integrator"
    rate_limits: RateLimits = field(default_factory=lambda: DEFAULT_RATE_LIMITS)
    ratelimit_headers: str = "x"
    quotas: Quotas = field(default_factory=dict)
    audit_reads: bool = False
    encryption_keys: KeyRing | None = field(default=None, repr=False)
    encrypt_payloads: bool = False
    trace_url: str = ""
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
        if not settings.requires_key and not is_loopback(settings.host):
            raise SettingsError(
                f"auth_required: HOST={settings.host} is no loopback address, and BUCKET_AUTH=off lets everyone do "
                "everything; set BUCKET_AUTH=required (make up ARGS=--auth), or HOST=127.0.0.1"
            )
        return settings

    @property
    def requires_key(self) -> bool:
        """Whether requests need a key or a token; by default only in production."""
        return self.auth == "required" or (not self.auth and self.environment == "production")

    @property
    def takes_tokens(self) -> bool:
        """Whether requests may bring a token of an outside issuer."""
        return self.requires_key and bool(self.jwt_issuer)

    def _contradictions(self) -> list[str]:
        faults = []
        if self.integrations == "required" and not self.requires_key:
            faults.append(
                "auth_required: BUCKET_INTEGRATIONS=required works only with BUCKET_AUTH=required; set both, or neither"
            )
        if self.heartbeat_s * 2 > self.lease_s:
            faults.append(
                f"BUCKET_HEARTBEAT_S={self.heartbeat_s:g} must be at most half of BUCKET_LEASE_S={self.lease_s:g}, "
                "or a lease would run out between two heartbeats"
            )
        if self.agents_dir is not None and not self.agents_dir.is_dir():
            faults.append(f"BUCKET_AGENTS_DIR={self.agents_dir} is not a directory")
        issuer = {
            "BUCKET_JWT_ISSUER": self.jwt_issuer,
            "BUCKET_JWT_AUDIENCE": self.jwt_audience,
            "BUCKET_JWT_JWKS": self.jwt_jwks,
        }
        missing = [name for name, value in issuer.items() if not value]
        if 0 < len(missing) < len(issuer):
            faults.append(f"{', '.join(issuer)} belong together; missing: {', '.join(missing)}")
        if self.encrypt_payloads and self.encryption_keys is None:
            faults.append("BUCKET_ENCRYPT_PAYLOADS=true needs a key: set BUCKET_ENCRYPTION_KEYS=<id>:<base64>")
        return faults


_OF_THE_CLIENT: Final = ("BUCKET_URL", "BUCKET_API_KEY")
"""Variables of ``client/``, which a shell may have set when a server is started from it."""


def warn_about_unknown_variables() -> None:
    """Log a warning for each unknown ``BUCKET_*`` variable, with the name that was probably meant."""
    for variable, meant in unknown_variables(os.environ).items():
        hint = f"; did you mean {meant}?" if meant else ""
        logging.getLogger(__name__).warning("the setting %s is not known%s", variable, hint)


def warn_about_unused_settings(settings: Settings) -> None:
    """Log a warning for rate limits, and one for settings of tokens, that have no effect because no key is needed."""
    if settings.requires_key:
        return
    log = logging.getLogger(__name__)
    if dict(settings.rate_limits) != dict(DEFAULT_RATE_LIMITS):
        log.warning(
            "BUCKET_LIMITS has no effect while BUCKET_AUTH=off: limits are those of keys; set BUCKET_AUTH=required"
        )
    default = Settings()
    unused = [
        variable
        for name, (variable, _) in VARIABLES.items()
        if variable.startswith("BUCKET_JWT_") and getattr(settings, name) != getattr(default, name)
    ]
    if unused:
        log.warning(
            "no effect while BUCKET_AUTH=off, which reads no token: %s; set BUCKET_AUTH=required", ", ".join(unused)
        )


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
