"""The two clients: :class:`Bucket` and :class:`AsyncBucket` have the same methods, each a flow that a driver runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from bucket_client import batches, feed, mapping, reads, submits, waits
from bucket_client.drivers import AsyncDriver, SyncDriver
from bucket_client.effects import EmittingFlow, Flow
from bucket_client.settings import ClientSettings

P = ParamSpec("P")
T = TypeVar("T")


def _returns(flow: Callable[Concatenate[ClientSettings, P], Flow[T]]) -> Callable[Concatenate[Bucket, P], T]:
    """Make a method of :class:`Bucket` from a flow; its arguments and its docstring are those of the flow."""

    def method(self: Bucket, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.run(flow(self._driver.settings, *args, **kwargs))

    return _described(method, flow)


def _yields(
    flow: Callable[Concatenate[ClientSettings, P], EmittingFlow[T]],
) -> Callable[Concatenate[Bucket, P], Generator[T, None, None]]:
    """Make a method of :class:`Bucket` that returns an iterator of what a flow emits."""

    def method(self: Bucket, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._driver.iterate(flow(self._driver.settings, *args, **kwargs))

    return _described(method, flow)


def _async_returns(
    flow: Callable[Concatenate[ClientSettings, P], Flow[T]],
) -> Callable[Concatenate[AsyncBucket, P], Coroutine[Any, Any, T]]:
    """Make a method of :class:`AsyncBucket` from a flow."""

    async def method(self: AsyncBucket, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.run(flow(self._driver.settings, *args, **kwargs))

    return _described(method, flow)


def _async_yields(
    flow: Callable[Concatenate[ClientSettings, P], EmittingFlow[T]],
) -> Callable[Concatenate[AsyncBucket, P], AsyncGenerator[T, None]]:
    """Make a method of :class:`AsyncBucket` that returns an async iterator of what a flow emits."""

    def method(self: AsyncBucket, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        return self._driver.iterate(flow(self._driver.settings, *args, **kwargs))

    return _described(method, flow)


M = TypeVar("M", bound=Callable[..., Any])


def _described(method: M, flow: Callable[..., Any]) -> M:
    """Give a method the docstring, the arguments and the returned type of its flow, for readers and editors."""
    of_flow = inspect.signature(flow)
    returned = re.sub(r"^Flow\[(.*)\]$", r"\1", str(of_flow.return_annotation))
    returned = re.sub(r"^EmittingFlow\[(.*)\]$", r"Iterator[\1]", returned)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *list(of_flow.parameters.values())[1:]]
    method.__doc__ = flow.__doc__
    method.__signature__ = of_flow.replace(parameters=parameters, return_annotation=returned)  # type: ignore[attr-defined]
    method.__name__ = "map" if flow is mapping.map_inputs else flow.__name__
    return method


class Bucket:
    """A client of one Bucket for ordinary programs; several threads may share it.

    ``url`` and ``api_key`` come from ``BUCKET_URL`` and ``BUCKET_API_KEY`` if they are not given. ``timeout`` is the
    limit of one request in seconds, ``retries`` how often a call is repeated if Bucket cannot be reached. Errors are
    those of ``bucket_client.errors``. Use it in a ``with``, or close it.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout: float = 30.0, retries: int = 5
    ) -> None:
        self._driver = SyncDriver(ClientSettings.read(url, api_key, timeout, retries))

    run = _returns(submits.run)
    run_agent = _returns(submits.run_agent)
    run_and_wait = _returns(waits.run_and_wait)
    retry = _returns(submits.retry)
    submit_many = _returns(batches.submit_many)
    poll = _returns(waits.poll)
    poll_many = _returns(waits.poll_many)
    wait = _returns(waits.wait)
    wait_many = _returns(waits.wait_many)
    cancel = _returns(reads.cancel)
    output = _returns(reads.output)
    agents = _returns(reads.agents)
    agent = _returns(reads.agent)
    baskets = _returns(reads.baskets)
    basket = _returns(reads.basket)
    create_basket = _returns(reads.create_basket)
    delete_basket = _returns(reads.delete_basket)
    consumers = _returns(reads.consumers)
    delete_consumer = _returns(reads.delete_consumer)
    health = _returns(reads.health)

    map = _yields(mapping.map_inputs)
    changes = _yields(feed.changes)
    logs = _yields(reads.logs)
    executions = _yields(reads.executions)

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncBucket:
    """A client of one Bucket for asyncio: the methods of :class:`Bucket`, awaited or iterated with ``async for``.

    Settings and errors are those of :class:`Bucket`. Use it in an ``async with``, or close it.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout: float = 30.0, retries: int = 5
    ) -> None:
        self._driver = AsyncDriver(ClientSettings.read(url, api_key, timeout, retries))

    run = _async_returns(submits.run)
    run_agent = _async_returns(submits.run_agent)
    run_and_wait = _async_returns(waits.run_and_wait)
    retry = _async_returns(submits.retry)
    submit_many = _async_returns(batches.submit_many)
    poll = _async_returns(waits.poll)
    poll_many = _async_returns(waits.poll_many)
    wait = _async_returns(waits.wait)
    wait_many = _async_returns(waits.wait_many)
    cancel = _async_returns(reads.cancel)
    output = _async_returns(reads.output)
    agents = _async_returns(reads.agents)
    agent = _async_returns(reads.agent)
    baskets = _async_returns(reads.baskets)
    basket = _async_returns(reads.basket)
    create_basket = _async_returns(reads.create_basket)
    delete_basket = _async_returns(reads.delete_basket)
    consumers = _async_returns(reads.consumers)
    delete_consumer = _async_returns(reads.delete_consumer)
    health = _async_returns(reads.health)

    map = _async_yields(mapping.map_inputs)
    changes = _async_yields(feed.changes)
    logs = _async_yields(reads.logs)
    executions = _async_yields(reads.executions)

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
