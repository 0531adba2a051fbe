"""Decodes documents of which some may be unreadable: those are logged, and hide no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import structlog
from pymongo.cursor import Cursor

T = TypeVar("T")


def decode_readable(documents: Iterable[dict[str, Any]], decode: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """Yield what ``decode`` makes of each document; one that cannot be decoded is logged and keeps no other back."""
    for document in documents:
        try:
            yield decode(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # One line and no traceback: a page may have to pass over hundreds.
            structlog.get_logger().error(
                "a stored document cannot be read", document_id=str(document.get("_id")), reason=repr(error)
            )


def read_whole_page(found: Cursor[dict[str, Any]], decode: Callable[[dict[str, Any]], T], limit: int) -> list[T]:
    """Return what ``decode`` makes of the first ``limit`` documents of ``found`` that it can decode; log the rest.

    A query with a limit costs one reply. Only if it has a document that cannot be decoded, the query is sent again
    without a limit, and read until the page is whole.
    """
    unlimited = found.clone().batch_size(limit)
    documents = list(found.limit(limit).batch_size(limit))
    page = list(decode_readable(documents, decode))
    if len(page) == len(documents) or len(documents) < limit:
        return page
    with unlimited:
        return list(islice(decode_readable(unlimited, decode), limit))


def time_of(document: Mapping[str, Any], name: str) -> datetime:
    """Return a time that ``document`` must have; raises KeyError or TypeError."""
    value = document[name]
    if not isinstance(value, datetime):
        raise TypeError(f"{name} is no time")
    return value
