"""Flows: generators that yield effects and are sent their outcomes, and the two drivers that run them.

All decisions are in the flows, which do no input or output. The sync and the async form of a function are one flow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CoreCall:
    """One POST to Core; its outcome is a :class:`CoreReply` or :class:`NoCoreReply`."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CoreReply:
    """The reply of Core; ``is_cut`` if its body is longer than the client reads."""

    status: int
    body: bytes
    is_cut: bool
    location: str
    retry_after: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class NoCoreReply:
    """Core gave no complete reply: the connection failed or broke, or the time was up."""

    reason: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait of ``seconds``; its outcome is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """A blocking function to run, in a thread if the driver is async; its outcome is what it returns or raises."""

    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class AwaitedWork:
    """A coroutine function to await; only async forms yield it."""

    run: Callable[[], Awaitable[Any]]


ConnectorEffect: TypeAlias = CoreCall | Pause | Work | AwaitedWork
ConnectorFlow: TypeAlias = Generator[ConnectorEffect, Any, T]
"""A flow that returns a T."""


def drive(flow: ConnectorFlow[T], perform: Callable[[ConnectorEffect], Any]) -> T:
    """Run a flow to its end; an exception of ``perform`` is raised inside the flow."""
    try:
        effect = next(flow)
        while True:
            try:
                outcome = perform(effect)
            except Exception as error:  # noqa: BLE001 -- the flow decides
                effect = flow.throw(error)
            else:
                effect = flow.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def drive_async(flow: ConnectorFlow[T], perform: Callable[[ConnectorEffect], Awaitable[Any]]) -> T:
    """Run a flow to its end; an exception of ``perform`` is raised inside the flow."""
    try:
        effect = next(flow)
        while True:
            try:
                outcome = await perform(effect)
            except Exception as error:  # noqa: BLE001 -- the flow decides
                effect = flow.throw(error)
            else:
                effect = flow.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result
