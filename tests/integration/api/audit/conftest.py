"""The API in this process, with keys required, on a real MongoDB and a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.settings import Settings

Event = dict[str, Any]


@dataclass
class Api:
    """The API, callers with keys of each role, and all keys that were made."""

    client: FlaskClient
    services: Services
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, role: Role = Role.ADMIN, integrator: str = PUBLIC_INTEGRATOR, **more: Any) -> str:
        name = f"{role} {integrator} {more}"
        if name not in self.keys:
            request = KeyRequest(role, integrator, expires_in=timedelta(hours=1), **more)
            self.keys[name] = KeyService(self.services).create(request, "test")["key"]
        return self.keys[name]

    def send(
        self, method: str, path: str, json: Any = None, *, key: str | None = None, headers: Mapping[str, str] = {}
    ) -> TestResponse:
        sent = {"Authorization": f"Bearer {self.key() if key is None else key}", **headers}
        return self.client.open(path, method=method, json=json, headers=sent)

    def stored(self) -> list[Event]:
        """Return what is stored, without the help of the API or a sequencer: what waits, and the chain."""
        collection = self.services.database.collection
        runs = collection("executions").find({"audit": {"$exists": True}})
        return [
            *collection("audit").find().sort("_id", 1),
            *collection("audit_pending").find().sort("_id", 1),
            *({"object": run["_id"], "outcome": "ok", **run["audit"]} for run in runs),
        ]

    def events(self, query: str = "", key: str | None = None) -> list[Event]:
        reply = self.send("GET", f"/audit?limit=1000{query}", key=key)
        assert reply.status_code == 200, reply.get_json()
        events: list[Event] = reply.get_json()["events"]
        return events


@pytest.fixture
def make_api(redis_url: str, mongodb_url: str) -> Iterator[Callable[..., Api]]:
    with ExitStack() as opened:

        def make(**settings: Any) -> Api:
            wanted = {"auth": "required", **settings}
            services = bootstrap(replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url, **wanted), "api")
            opened.enter_context(closing(services.database))
            opened.enter_context(closing(services.redis))
            app, start = create_app(services)
            opened.callback(start())
            return Api(app.test_client(), services)

        yield make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()
