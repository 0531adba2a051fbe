"""Plays a flow of the client against scripted outcomes, with a clock that only sleeps move."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from bucket_client.effects import Emit, NoReply, Reply, Request, Sleep
from bucket_client.settings import ClientSettings


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    """Return a reply with a JSON body; ``retry_after="3"`` is a header."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, names, b"" if body is None else json.dumps(body).encode())


NO_REPLY = NoReply("connection refused")


@dataclass
class FlowPlayer:
    """Replies to the requests of flows with ``outcomes``, in order; a request itself takes ``request_s`` seconds."""

    outcomes: list[Reply | NoReply] = field(default_factory=list)
    request_s: float = 0.0
    now_s: float = 1000.0
    requests: list[Request] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    emitted: list[Any] = field(default_factory=list)

    def settings(self, retries: int = 5, chance: float = 1.0) -> ClientSettings:
        """Return settings with this clock, and with jitter of a known size."""
        return ClientSettings(retries=retries, clock=lambda: self.now_s, chance=lambda: chance)

    def play(self, flow: Generator[Any, Any, Any]) -> Any:
        """Run a flow to its end and return its value."""
        outcome: Any = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            outcome = self._outcome_of(effect)

    def bodies(self) -> Iterable[Any]:
        """Return the parsed bodies of the requests."""
        return [json.loads(request.body) for request in self.requests if request.body is not None]

    def _outcome_of(self, effect: Any) -> Any:
        if isinstance(effect, Sleep):
            self.sleeps.append(effect.seconds)
            self.now_s += effect.seconds
            return None
        if isinstance(effect, Emit):
            self.emitted.append(effect.value)
            return None
        self.requests.append(effect)
        self.now_s += self.request_s
        assert self.outcomes, f"no reply is left for {effect}"
        return self.outcomes.pop(0)
