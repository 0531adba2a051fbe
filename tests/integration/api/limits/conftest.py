"""Fixtures: API processes in this process, which share a real Redis and MongoDB, and their callers' keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.limits import LimitClass, RateLimit
from shared.settings import Settings
from tests.waiting import wait_until

PEPPER: Final = "a pepper of more than thirty-two characters"
RUN: Final = {"basket_name": "working_test", "input_data": {"transactions": []}}
WIDE: Final = RateLimit(10_000, 10_000)


def limits(**given: RateLimit) -> dict[LimitClass, RateLimit]:
    """Return limits that nobody reaches, except for those that are given."""
    return {name: given.get(name, WIDE) for name in LimitClass}


@dataclass
class Api:
    """One process of the API, with a caller of the integrator acme; its background threads run."""

    services: Services
    client: FlaskClient
    key: str = ""
    ids: list[str] = field(default_factory=list)

    def new_key(self, role: Role = Role.ADMIN, integrator: str = "public") -> str:
        """Return a new key."""
        text: str = KeyService(self.services).create(KeyRequest(role, integrator), "test")["key"]
        return text

    def call(self, method: str, path: str, *, key: str | None = None, **more: Any) -> TestResponse:
        """Send a request with the caller's key, or with another one."""
        headers = {"Authorization": f"Bearer {key or self.key}"} | more.pop("headers", {})
        return self.client.open(path, method=method, headers=headers, **more)

    def submit(self, **more: Any) -> TestResponse:
        """Submit a run."""
        return self.call("POST", "/run-basket", json=RUN, **more)


@pytest.fixture
def make_api(redis_url: str, mongodb_url: str) -> Iterator[Callable[..., Api]]:
    """Yield a function that starts an API with the given settings; all of them share the stores."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Api:
            common: dict[str, Any] = {
                "redis_url": redis_url, "mongodb_url": mongodb_url, "auth": "required", "key_pepper": PEPPER,
            }  # fmt: skip
            services = bootstrap(Settings(**(common | settings)), "api")
            stack.enter_context(closing(services.database))
            stack.enter_context(closing(services.redis))
            app, start = create_app(services)
            stack.callback(start())
            api = Api(services, app.test_client())
            # Until its threads have seen the stores, a write may be refused, and limits are open.
            wait_until(lambda: api.client.get("/ready").status_code == 200, 10, "the stores are there")
            api.key = api.new_key()
            return api

        yield make
