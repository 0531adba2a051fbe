"""The API with keys required, over real servers, and its callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.bootstrap import bootstrap
from tests.callers import Callers, settings_with_keys


@pytest.fixture
def callers(redis_url: str, mongodb_url: str) -> Iterator[Callers]:
    services = bootstrap(settings_with_keys(redis_url, mongodb_url), "api")
    services.clock.sync()
    services.prepare()
    with closing(services.redis), closing(services.database):
        made = Callers(services)
        try:
            yield made
        finally:
            made.end()
