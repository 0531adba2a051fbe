"""Fixtures for the tests of ``shared/store``: a database with its indexes on a real MongoDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.store.database import Database


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        database.ensure_indexes()
        yield database
