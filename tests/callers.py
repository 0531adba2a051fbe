"""The API in this process with keys required, and a client for each caller: of two integrators, and an admin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.domain.execution import ErrorKind, Execution, LogEvent, RunError
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import claim, complete, fail
from shared.live.publisher import SavedDecision
from shared.settings import Settings
from shared.store.feed.change_stream import ChangeBatch
from tests.waiting import wait_until

PEPPER: Final = "a pepper of more than thirty-two characters"
ACME: Final = "acme"
ZENITH: Final = "zenith"
SECRET: Final = "only-acme-knows"
"""Stands in the input, metadata, output, log lines and error of runs, where a test looks for what must not be seen."""


def settings_with_keys(redis_url: str, mongodb_url: str) -> Settings:
    """Return settings of a server that requires keys."""
    return Settings(
        redis_url=redis_url, mongodb_url=mongodb_url, auth="required", key_pepper=PEPPER, environment="test"
    )


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """A client that sends each request with one key."""

    client: FlaskClient
    key: str
    integrator: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """Send a request; underscores in the names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {self.key}"} | named)

    def get(self, path: str, **headers: str) -> TestResponse:
        """Send a GET."""
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        """Send a POST."""
        return self.call("POST", path, {} if body is None else body, **headers)

    def submit(self, basket: str = "working_test", **more: Any) -> str:
        """Submit a run of a basket and return its id."""
        headers = {"Idempotency_Key": more.pop("key")} if "key" in more else {}
        input_data = {"transactions": [{"id": 1, "amount": 1, "description": SECRET}]}
        reply = self.post("/run-basket", {"basket_name": basket, "input_data": input_data, **more}, **headers)
        assert reply.status_code == 202, reply.text
        return str(reply.json["execution_id"])


class Callers:
    """The API, and its callers: ``acme`` and ``zenith`` of the role integrator, an ``admin``, and ``new`` ones."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.app, start = create_app(services)
        self.end = start()
        self._keys = KeyService(services)
        self.acme, self.zenith = self.new(Role.INTEGRATOR, ACME), self.new(Role.INTEGRATOR, ZENITH)
        self.public = self.new(Role.INTEGRATOR, "public")
        self.admin = self.new(Role.ADMIN, "public")
        wait_until(lambda: self.admin.get("/ready").status_code == 200, what="the API is ready")

    def new(self, role: Role, integrator: str, **more: Any) -> ApiCaller:
        """Return a caller with a new key."""
        key = self._keys.create(KeyRequest(role, integrator, **more), "test")["key"]
        return ApiCaller(self.app.test_client(), key, integrator)

    def finish(self, execution_id: str, *, fails: bool = False, result: Any = None) -> None:
        """Run the first step of a run, and end it, as a worker would: with ``result``, or with an error."""
        services, now = self.services, self.services.clock.now()
        run = services.store.load(None, execution_id)
        assert run is not None
        step = next(iter(run.steps))
        claimed = claim(run, step, "token-1", now, services.timings)
        assert claimed is not None
        running = services.store.save(run, claimed).execution
        lease = running.lease_of(step)
        if fails:
            error = RunError("boom", SECRET, ErrorKind.LOST, step, run.steps[step].agent, 1)
            decision = fail(running, lease, error, now)
        else:
            output = StepOutput(step, orjson.dumps(result or {"secret": SECRET}))
            decision = complete(running, lease, output, now, services.timings)
        data = orjson.dumps({"x": SECRET})
        line = LogEvent(now, "agent.log", SECRET, agent=run.steps[step].agent, step=step, data=data)
        decision = replace(decision, events=(*decision.events, line))
        record = services.store.save(running, decision, lease=lease)
        saved = SavedDecision(record, decision, record.lines_total - len(decision.events))
        services.publisher.publish_decisions([saved], as_of=boottime_s())

    def failed(self, caller: ApiCaller, **more: Any) -> str:
        """Return the id of a run of ``caller`` that has failed for good: a dead letter."""
        execution_id = caller.submit(**more)
        self.finish(execution_id, fails=True)
        return execution_id

    def completed(self, caller: ApiCaller, basket: str = "working_test", **more: Any) -> str:
        """Return the id of a completed run of ``caller``."""
        execution_id = caller.submit(basket, **more)
        while not self.load(execution_id).is_done:
            self.finish(execution_id)
        return execution_id

    def load(self, execution_id: str) -> Execution:
        """Return a run as it is stored."""
        run = self.services.store.load(None, execution_id)
        assert run is not None
        return run

    def feed(self, *execution_ids: str) -> None:
        """Put changes of runs into the feed, as the relay would."""
        last = self.services.feed_writer.ensure_started()
        changes = ChangeBatch(execution_ids, last.token, is_full=False)
        assert self.services.feed_writer.append(last, changes, as_of=self.services.clock.now())

    def empty_redis(self) -> None:
        """Delete all that Redis has of runs, so that each read goes to MongoDB."""
        for pattern in ("execution:*", "output:*", "logs"):
            for key in self.services.redis.scan_iter(pattern):
                self.services.redis.delete(key)
