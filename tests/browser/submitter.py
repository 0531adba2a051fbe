"""Submits runs to a stack and waits for what they become, as another program would beside the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests

from tests.stack import Stack
from tests.waiting import wait_until


class Submitter:
    """A caller of a stack; ``key`` is sent with each request if there is one."""

    def __init__(self, stack: Stack, key: str | None = None) -> None:
        self.stack = stack
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def submit(self, basket: str = "working_test", **more: Any) -> str:
        """Submit a run of a basket, and return its id."""
        reply = self.call("POST", "/run-basket", {"basket_name": basket, **more})
        return str(reply["execution_id"])

    def simulate(self, *script: str, **more: Any) -> str:
        """Submit a run that plays a script of the simulator."""
        return self.submit("simulate", input_data={"script": list(script)}, **more)

    def ended(self, execution_id: str, *statuses: str) -> dict[str, Any]:
        """Wait for the end of a run, and return its view; it must end as one of ``statuses``, if there are any."""
        view: dict[str, Any] = {}

        def is_over() -> bool:
            view.update(self.call("GET", f"/executions/{execution_id}"))
            return bool(view["done"])

        wait_until(is_over, within_s=30, what=f"{execution_id} is over")
        assert not statuses or view["status"] in statuses, view
        return view

    def reaches(self, execution_id: str, status: str) -> None:
        """Wait until a run has a status."""
        wait_until(lambda: self.call("GET", f"/executions/{execution_id}")["status"] == status, 20, status)

    def failed(self, code: str = "card_declined", **more: Any) -> str:
        """Return the id of a run that has failed for good."""
        execution_id = self.simulate(f"failed:{code}", **more)
        self.ended(execution_id, "failed")
        return execution_id

    def dead_letter(self) -> str:
        """Return the id of a run that has become a dead letter; the stack needs the agents of the tests."""
        config = {"name": "breaks", "steps": [{"agent": "raiser", "retry": "none"}]}
        reply = self.call(
            "POST", "/run-basket", {"config": config, "input_data": {"kind": "TransientError", "message": "no"}}
        )
        execution_id = str(reply["execution_id"])
        self.ended(execution_id, "failed")
        return execution_id

    def completed(self, **more: Any) -> str:
        """Return the id of a run that is completed."""
        execution_id = self.simulate("completed", **more)
        self.ended(execution_id, "completed")
        return execution_id

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request and return the body of its reply, which must not be a refusal."""
        url = self.stack.url + path
        reply = requests.request(method, url, json=body, headers=self._headers, timeout=10)
        assert reply.ok, f"{method} {path}: {reply.status_code} {reply.text}"
        found: dict[str, Any] = reply.json()
        return found

    def listed(self, query: str) -> Sequence[dict[str, Any]]:
        """Return the runs that a query of GET /executions lists."""
        found: Sequence[dict[str, Any]] = self.call("GET", f"/executions?{query}")["executions"]
        return found
