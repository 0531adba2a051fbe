"""Availability of agents as this process knows it: its own catalogue, and what the workers report by Redis.

It makes no call to a store: the Redis monitor reads the workers' reports in the background.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.unavailability import Unavailability, agent_unavailable
from shared.errors import AgentNotFound
from shared.live.redis_monitor import RedisMonitor


class AgentAvailability:
    """Whether an agent can run now: its spec is right, and some worker can run it, or no worker is present."""

    def __init__(self, catalogue: AgentCatalogue, monitor: RedisMonitor) -> None:
        self._catalogue = catalogue
        self._monitor = monitor

    def unavailability(self, name: str) -> Unavailability | None:
        """Return why an agent cannot run; None if it can, as far as is known, or if there is no such agent."""
        broken = self._catalogue.broken.get(name)
        return self._monitor.last.unavailable.get(name) if broken is None else Unavailability(broken.reason)

    def is_listed(self, name: str) -> bool:
        """Return whether clients see the agent: its spec may hide it while no worker has its settings."""
        why = self.unavailability(name)
        is_unset = why is not None and why.lacks_settings and self._catalogue.has(name)
        return not (is_unset and self._catalogue.agent(name).unlisted_without_settings)

    def check_listed(self, *names: str) -> None:
        """Raise AgentNotFound, with the reason, if clients do not see one of these agents."""
        for name in names:
            why = self.unavailability(name)
            if why is not None and not self.is_listed(name):
                message = f"agent {name!r} was not found: it is not set up here, because {why.reason} at any worker"
                raise AgentNotFound(message, details=[{"message": message}])

    def check(self, names: Iterable[str]) -> None:
        """Raise AgentUnavailable, with all reasons, if one of the agents that a run needs cannot run now."""
        found = {name: why for name in dict.fromkeys(names) if (why := self.unavailability(name)) is not None}
        if found:
            raise agent_unavailable({name: why.reason for name, why in found.items()})

    def find_faults(self, definition: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        """Yield a fault, with its JSON pointer, for each place of a basket that names an unavailable agent."""
        named = [(f"/agents/{index}", name) for index, name in enumerate(definition.get("agents", ()))]
        steps = enumerate(definition.get("steps", ()))
        for pointer, name in (*named, *((f"/steps/{index}/agent", step["agent"]) for index, step in steps)):
            why = self.unavailability(name)
            if why is not None:
                yield {"pointer": pointer, "message": f"agent {name!r} is unavailable: {why.reason}"}
