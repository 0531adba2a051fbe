"""Speaks the provider's protocol by the gateway: pages of transactions and of reports, and a POST."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from worker.agent_errors import PermanentError
from worker.context import Http

PAGES_MAX: Final = 10_000
_NEXT_MAX_CHARS: Final = 2_000
_DEFAULTS: Final = ("currency", "unit")


class AnswerUnreadable(PermanentError):
    """An answer that does not follow the protocol."""


class ProviderClient:
    """One provider; ``check_stop`` is called before each request and raises if the step should stop.

    With ``accepts_stale`` a provider that is away may be replaced by its last good answers; ``is_stale`` says so.
    """

    def __init__(self, http: Http, url: str, check_stop: Callable[[], None], *, accepts_stale: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise PermanentError("FINANCIAL_COORDINATOR_API_URL must be an http(s) URL without query or fragment")
        self._http = http
        self._url = url.rstrip("/")
        self._origin = (parts.scheme, parts.netloc)
        self._check_stop = check_stop
        self._accepts_stale = accepts_stale
        self.is_stale = False

    def transactions(self, account: str | None) -> Iterator[Any]:
        """Yield the provider's transactions as they are, with the currency and unit that their page declares."""
        for page in self._pages("transactions", account):
            defaults = {name: page[name] for name in _DEFAULTS if page.get(name) is not None}
            for raw in page["transactions"]:
                yield {**defaults, **raw} if defaults and isinstance(raw, Mapping) else raw

    def reports(self, account: str | None) -> Iterator[Any]:
        """Yield the provider's reports as they are."""
        for page in self._pages("reports", account):
            yield from page["reports"]

    def add(self, entry: Mapping[str, Any]) -> Any:
        """Send a transaction; its ``id``, the step's idempotency key, is sent as the header ``Idempotency-Key`` too.

        Return the provider's transaction; None if its answer has none.
        """
        self._check_stop()
        response = self._http.post(
            f"{self._url}/transactions", json=dict(entry), idempotency_key=str(entry["id"]), critical=True
        )
        try:
            body = response.json(parse_float=Decimal) if response.content else None
        except (ValueError, RecursionError, PermanentError):
            return None  # the status said that it was added
        added = body.get("transaction", body) if isinstance(body, Mapping) else None
        return added if isinstance(added, Mapping) else None

    def _pages(self, name: str, account: str | None) -> Iterator[Mapping[str, Any]]:
        first = {"account": account} if account else {}
        url, params, seen = f"{self._url}/{name}", first, set[str]()
        while True:
            page = self._page(name, url, params)
            yield page
            following = self._next_of(page)
            if following is None:
                return
            if following in seen or len(seen) >= PAGES_MAX:
                raise PermanentError(f"the provider's {name} have no end: {len(seen) + 1} pages were read")
            seen.add(following)
            is_cursor = not following.startswith(("/", "http://", "https://"))
            url = f"{self._url}/{name}" if is_cursor else self._same_origin(following)
            params = {**first, "cursor": following} if is_cursor else {}

    def _page(self, name: str, url: str, params: Mapping[str, str]) -> Mapping[str, Any]:
        self._check_stop()
        stale = self._accepts_stale
        response = self._http.get(url, params=dict(params) or None, critical=not stale, fallback=stale)
        self.is_stale |= bool(getattr(response, "stale", False))
        try:
            page = response.json(parse_float=Decimal)  # amounts as they were written
        except (ValueError, RecursionError) as error:
            raise AnswerUnreadable(f"the provider's answer to GET /{name} is not JSON") from error
        if not isinstance(page, Mapping) or not isinstance(page.get(name), list):
            raise AnswerUnreadable(f"the provider's answer to GET /{name} must be an object with a list {name!r}")
        return page

    @staticmethod
    def _next_of(page: Mapping[str, Any]) -> str | None:
        following = page.get("next")
        if following is None or following == "":
            return None
        if not isinstance(following, str) or len(following) > _NEXT_MAX_CHARS:
            raise PermanentError("the provider's 'next' must be a cursor or an URL, a text")
        return following

    def _same_origin(self, following: str) -> str:
        try:
            url = urljoin(f"{self._url}/", following)
            parts = urlsplit(url)
        except ValueError as error:
            raise PermanentError("the provider's 'next' is not an URL") from error
        if (parts.scheme, parts.netloc) != self._origin:
            raise PermanentError("the provider's 'next' leads to another origin, which is not followed")
        return url
