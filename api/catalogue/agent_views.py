"""What clients see of an agent: its spec, whether it can run now, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import redis
import structlog

from api.catalogue.availability import AgentAvailability
from shared.bootstrap import Services
from shared.domain.definitions.marked_fields import marked_paths, mask
from shared.live.duration_stats import agent_samples_key, read_samples
from shared.live.redis_monitor import RedisMonitor

_UNKNOWN_DURATIONS: Final = {"p50_s": None, "p95_s": None, "count": None}


class AgentViews:
    """Views of the agents of the catalogue, also of those whose specs are wrong."""

    def __init__(self, services: Services, availability: AgentAvailability, monitor: RedisMonitor) -> None:
        self._catalogue = services.catalogue
        self._redis = services.redis
        self._availability = availability
        self._monitor = monitor

    def list_all(self, domain: str | None = None) -> list[dict[str, Any]]:
        """Return the views of all agents, or of those of one domain, sorted by name."""
        listed = [spec.name for spec in self._catalogue.agents(domain) if self._availability.is_listed(spec.name)]
        broken = [name for name, agent in self._catalogue.broken.items() if domain is None or domain in agent.domains]
        return self._views(sorted([*listed, *broken]))

    def one(self, name: str) -> dict[str, Any]:
        """Return the view of one agent; raises AgentNotFound."""
        self._catalogue.check_known(name)
        self._availability.check_listed(name)
        return self._views([name])[0]

    def _views(self, names: Sequence[str]) -> list[dict[str, Any]]:
        durations = self._read_durations(names)
        return [
            self._spec(name) | {"availability": self._availability_view(name), "durations": durations[name]}
            for name in names
        ]

    def _spec(self, name: str) -> dict[str, Any]:
        broken = self._catalogue.broken.get(name)
        return self._masked_spec(name) if broken is None else {**broken.fields, "name": name}

    def _masked_spec(self, name: str) -> dict[str, Any]:
        """Return a spec with ``***`` in the marked fields of its samples."""
        spec = self._catalogue.agent(name).to_json()
        for part, schema in (
            ("sample_input", self._catalogue.marked_input_schema(name)),
            ("sample_output", self._catalogue.marked_output_schema(name)),
        ):
            if schema is not None:
                spec[part] = mask(spec[part], marked_paths(schema, spec[part]))[0]
        return spec

    def _availability_view(self, name: str) -> dict[str, str]:
        why = self._availability.unavailability(name)
        return {"status": "available"} if why is None else {"status": "unavailable", "reason": why.reason}

    def _read_durations(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the durations by the agents' names, read in one round trip; unknown ones while Redis is away."""
        keys = {name: agent_samples_key(name) for name in names}
        samples: Mapping[str, Sequence[float]] = {}
        if self._monitor.last.is_connected:
            try:
                samples = read_samples(self._redis, list(keys.values()))
            except redis.RedisError as error:
                structlog.get_logger().info("the durations of agents could not be read", reason=str(error))
        return {name: summarise_durations(samples.get(key)) for name, key in keys.items()}


def summarise_durations(samples: Sequence[float] | None) -> Mapping[str, Any]:
    """Return the 50th and 95th percentile (nearest rank) of sorted durations; None if they are not known."""
    if samples is None:
        return _UNKNOWN_DURATIONS
    if not samples:
        return _UNKNOWN_DURATIONS | {"count": 0}
    p50_s, p95_s = (samples[math.ceil(share * len(samples)) - 1] for share in (0.5, 0.95))
    return {"p50_s": p50_s, "p95_s": p95_s, "count": len(samples)}
