"""The API in this process with keys required, and visitors of its dashboard, on a real MongoDB and a real Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from tests.callers import settings_with_keys

TRACE_URL = "https://traces.example/trace/{trace_id}?from=bucket"
TOKEN = re.compile(r'name="csrf_token" value="([0-9a-f]+)"')


@dataclass
class Visitor:
    """A person with a browser of their own: cookies, and the token of the page that was loaded last."""

    client: FlaskClient
    csrf_token: str = ""

    def get(self, path: str, **headers: str) -> TestResponse:
        response = self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        if found := TOKEN.search(response.text):
            self.csrf_token = found[1]
        return response

    def post(self, path: str, *, headers: dict[str, str] | None = None, **form: Any) -> TestResponse:
        return self.client.post(path, data={"csrf_token": self.csrf_token} | form, headers=headers or {})

    def log_in(self, key: str) -> TestResponse:
        self.get("/ui/login")
        response = self.post("/ui/login", key=key)
        if response.status_code == 303:
            self.get("/ui/runs")
        return response


@dataclass
class Dashboard:
    """The application, and keys for it."""

    app: flask.Flask
    services: Services

    def key(self, role: Role = Role.OPERATOR, integrator: str = "acme", **more: Any) -> dict[str, Any]:
        request = KeyRequest(role, integrator, **({"expires_in": timedelta(hours=1)} | more))
        return dict(KeyService(self.services).create(request, "test"))

    def visitor(self) -> Visitor:
        return Visitor(self.app.test_client())

    def logged_in(self, role: Role = Role.OPERATOR, integrator: str = "acme", **more: Any) -> Visitor:
        visitor = self.visitor()
        assert visitor.log_in(self.key(role, integrator, **more)["key"]).status_code == 303
        return visitor

    def submit(self, integrator: str = "acme", headers: Mapping[str, str] | None = None, **body: Any) -> str:
        """Submit a run over the API; no worker runs here, so it stays queued."""
        headers = {"Authorization": f"Bearer {self.key(Role.INTEGRATOR, integrator)['key']}"} | dict(headers or {})
        reply = self.app.test_client().post("/run-basket", json={"basket_name": "working_test"} | body, headers=headers)
        assert reply.status_code == 202, reply.text
        return str(reply.get_json()["execution_id"])


@pytest.fixture
def dashboard(redis_url: str, mongodb_url: str) -> Iterator[Dashboard]:
    settings = replace(settings_with_keys(redis_url, mongodb_url), trace_url=TRACE_URL)
    services = bootstrap(settings, "api")
    services.clock.sync()
    services.prepare()
    with closing(services.redis), closing(services.database):
        app, start = create_app(services)
        end = start()
        yield Dashboard(app, services)
        end()
