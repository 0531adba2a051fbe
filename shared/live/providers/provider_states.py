"""The state of each provider as ``/health`` and ``/metrics`` show it; read by one command, in a pipeline or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

STATES_KEY: Final = "metrics:circuits"
SEEN_FOR_MS: Final = 86_400_000
PROVIDERS_MAX: Final = 200

CircuitState = Literal["closed", "half-open", "open"]


@dataclass(frozen=True, slots=True, order=True)
class ProviderState:
    """A provider that was called in the last day, or may be called.

    ``is_critical``: a critical call was made to it in the last day.
    """

    name: str
    state: CircuitState = "closed"
    is_critical: bool = False

    @property
    def is_down(self) -> bool:
        """Whether calls to it are refused, or only a probe is let through."""
        return self.state != "closed"


def read_states(client: Any) -> None:
    """Append the commands to the pipeline ``client``; :func:`decode_states` takes their two replies."""
    client.hgetall(STATES_KEY)
    client.time()


def decode_states(stored: Any, time: Any) -> tuple[ProviderState, ...]:
    """Return the states by name, at most 200; whatever else is in the hash is skipped."""
    if not isinstance(stored, Mapping) or not isinstance(time, tuple):
        return ()
    now_ms = time[0] * 1_000 + time[1] // 1_000
    found = (_decode(name, value, now_ms) for name, value in stored.items())
    return tuple(sorted(state for state in found if state is not None))[:PROVIDERS_MAX]


def with_missing(states: Iterable[ProviderState], names: Iterable[str]) -> tuple[ProviderState, ...]:
    """Return ``states`` and a closed circuit for each of ``names`` that has none."""
    by_name = {name: ProviderState(name) for name in names} | {state.name: state for state in states}
    return tuple(sorted(by_name.values()))


def _decode(name: bytes, value: bytes, now_ms: int) -> ProviderState | None:
    try:
        open_until, critical_until, seen_at = (float(part) for part in value.split())
    except ValueError:
        return None
    if now_ms - seen_at > SEEN_FOR_MS:
        return None
    state: CircuitState = "closed" if open_until == 0 else "open" if now_ms < open_until else "half-open"
    return ProviderState(name.decode("utf-8", "replace"), state, now_ms < critical_until)
