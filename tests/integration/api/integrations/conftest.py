"""The application on a real MongoDB and Redis, with keys required, and two processes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.settings import Settings

REQUEST = {
    "name": "acme",
    "use_case": "totals of invoices",
    "data_flow": "amounts in, totals out",
    "agents": ["financial_coordinator"],
    "baskets": ["working_test"],
    "volume": 100,
    "contact": "ops@example.com",
}
RUN = {"basket_name": "working_test", "input_data": {"transactions": []}}


@dataclass(frozen=True, slots=True)
class Api:
    """One process of the API, and an admin's key."""

    client: FlaskClient
    services: Services
    admin_key: str

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> TestResponse:
        headers = {"Authorization": f"Bearer {key or self.admin_key}"}
        return self.client.open(path, method=method, json=body, headers=headers)

    def submit(self, key: str) -> TestResponse:
        return self.send("POST", "/run-basket", RUN, key=key)

    def key_of(self, role: Role, **more: Any) -> str:
        request = KeyRequest(role, more.pop("integrator", "acme"), **more)
        return str(KeyService(self.services).create(request, "test")["key"])

    def registered(self, **changes: Any) -> str:
        """Register an integration and return its id."""
        reply = self.send("POST", "/integrations", REQUEST | changes)
        assert reply.status_code == 201, reply.json
        return str(reply.get_json()["id"])

    def approved(self, **changes: Any) -> str:
        """Return the id of an approved integration that lacks nothing for its activation."""
        integration_id = self.registered(**changes)
        self.send("PUT", f"/integrations/{integration_id}/checklist", dict.fromkeys(CHECKLIST_ITEMS, True))
        for action in ("review", "approve"):
            assert self.send("POST", f"/integrations/{integration_id}/{action}").status_code == 200
        return integration_id

    def activated(self, **changes: Any) -> tuple[str, str]:
        """Return the id and the key of an active integration."""
        integration_id = self.approved(**changes)
        reply = self.send("POST", f"/integrations/{integration_id}/activate")
        assert reply.status_code == 200, reply.json
        return integration_id, str(reply.get_json()["key"])


@pytest.fixture
def start_api(redis_url: str, mongodb_url: str) -> Iterator[Callable[..., Api]]:
    """Yield a function that starts one more process of the API with these settings."""
    with ExitStack() as opened:

        def start(**settings: Any) -> Api:
            chosen = replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url, auth="required", **settings)
            services = bootstrap(chosen, "api")
            opened.enter_context(closing(services.database))
            opened.enter_context(closing(services.redis))
            services.prepare()
            app, begin = create_app(services)
            opened.callback(begin())
            admin = KeyService(services).create(KeyRequest(Role.ADMIN, "public"), "test")
            return Api(app.test_client(), services, admin["key"])

        yield start


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    return start_api()
