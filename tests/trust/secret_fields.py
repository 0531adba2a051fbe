"""Sends values of marked fields, in runs and in requests that are refused, so that the scan can look for them.

The exceptions of docs/data.md are left out: short texts, numbers, and what an agent has cut or encoded.
"""

from __future__ import annotations

import json
import random
from typing import Any, Final

from requests import codes

from tests.trust.recorded_calls import RecordedCalls
from tests.trust.secret_scan import SecretScan
from tests.waiting import wait_until

BURST: Final = 40
LIMITS: Final = json.dumps({"submit": {"per_s": 0.01, "burst": BURST}})
_LATER_S: Final = 3_600


class MarkedFields:
    """The marked fields of one run on a stack; each request has values of its own."""

    def __init__(self, calls: RecordedCalls, scan: SecretScan, rng: random.Random) -> None:
        self._calls, self._scan, self._rng = calls, scan, rng
        made = {
            role: calls.call("POST", "/keys", {"role": role, "integrator": "fields"}, shows=f"the {role} of fields")
            for role in ("operator", "reader", "integrator")
        }
        self._operator, self._reader, self._limited = (f"Bearer {each['key']}" for each in made.values())

    def use(self) -> None:
        """Run what succeeds, fails, waits and is erased; then be refused for each reason."""
        self._run()
        self._be_refused_for_the_body()
        self._be_refused_for_the_caller()

    def _pin(self, where: str) -> str:
        pin = f"pin-{self._rng.getrandbits(160):040x}"
        self._scan.add(f"a marked field {where}", pin)
        return pin

    def _person(self, where: str, **more: Any) -> dict[str, Any]:
        return {"person": {"pin": self._pin(where), "name": "Ada"}, "codes": [{"code": self._pin(where)}], **more}

    def _post(self, path: str, body: Any, **headers: str) -> Any:
        return self._calls.call("POST", path, body, **({"Authorization": self._operator} | headers))

    def _run(self) -> None:
        succeeds = {"agent_name": "keeper", "input_data": self._person("of a run")}
        raises = {"agent_name": "keeper", "input_data": self._person("of a run that raises", raises=True)}
        tries = {"agent_name": "keeper", "input_data": self._person("of a run with attempts that fail", fails_until=2)}
        ended = [
            self._end(self._post("/run-agent", body, **{"Idempotency-Key": f"fields-{number}"}))
            for number, body in enumerate((succeeds, raises, tries))
        ]
        assert [view["status"] for view in ended] == ["completed", "failed", "completed"], ended
        self._end(self._post("/run-basket", self._flow()))
        self._end(self._post(f"/executions/{ended[1]['execution_id']}/retry", {"from": "start"}))
        self._post("/run-agent", succeeds, **{"Idempotency-Key": "fields-0"})
        for path in (f"/executions/{view['execution_id']}" for view in ended):
            for shown in ("", "/result", "/outputs/keeper"):
                self._calls.call("GET", f"{path}{shown}", Authorization=self._operator)
                self._calls.call("GET", f"{path}{shown}", Authorization=self._reader)
        self._calls.call("DELETE", f"/executions/{ended[2]['execution_id']}", Authorization=self._operator)
        waits = self._post("/run-basket", {**self._flow(), "run_after_s": _LATER_S})
        self._post(f"/executions/{waits['execution_id']}/cancel", {})

    def _flow(self) -> dict[str, Any]:
        """Return a run whose marked value goes through an agent without marks, between two that have them."""
        steps = [
            {"id": "first", "agent": "keeper", "input": {"person": {"pin": {"from": "input", "pointer": "/word"}}}},
            {"id": "passed", "agent": "echo", "needs": ["first"],
             "input": {"word": {"from": "first", "pointer": "/seen/codes/0/code"}}},
            {"id": "last", "agent": "keeper", "needs": ["passed"],
             "input": {"person": {"pin": {"from": "passed", "pointer": "/word"}}}},
        ]  # fmt: skip
        return {"config": {"name": "flow", "steps": steps}, "input_data": {"word": self._pin("that other agents get")}}

    def _end(self, accepted: Any) -> Any:
        path = f"/execution-logs/{accepted['execution_id']}?wait=15&until=done"
        view = self._calls.call("GET", path, Authorization=self._operator)
        assert view["done"], view
        return view

    def _be_refused_for_the_body(self) -> None:
        pin = self._pin("of the wrong type")
        number = self._rng.random() * 1e6
        self._scan.add("a marked number of the wrong type", f"{number!r}")
        wrong = (
            {"person": {"pin": [pin]}, "codes": pin},
            {"person": pin},
            {"person": {"pin": {"value": pin}}},
            {"person": {"pin": number}},
            {"person": {"pin": pin, "name": 7}},
            {"persons": {"pin": pin}},
        )
        for given in wrong:
            self._post("/run-agent", {"agent_name": "keeper", "input_data": given})
        person = {"agent_name": "keeper", "input_data": self._person("of a body that is refused")}
        self._post("/run-agent", {**person, "input_dta": person["input_data"]})
        self._post("/run-agent", {**person, "run_after_s": "soon"})
        self._post("/run-agent", person, **{"Idempotency-Key": "fields-0"})
        self._post("/run-basket/batch", {"items": [{"config": {"agents": ["keeper"]}, "input_data": wrong[0]}]})
        written = {"name": "written", "steps": [{"agent": "keeper", "input": person["input_data"]}]}
        self._post("/run-basket", {"config": written})
        self._post("/create-basket", written)
        text = json.dumps(person).encode()
        for raw, kind in ((text[:-3], "application/json"), (text, "text/plain"), (text + b"\xff", "application/json")):
            self._calls.call(
                "POST", "/run-agent", raw=raw, Authorization=self._operator, **{"Content-Type": kind}
            )  # fmt: skip

    def _be_refused_for_the_caller(self) -> None:
        """Send what would be run, without a key, with a key that lacks the right, and beyond the limit."""
        body = {"agent_name": "keeper", "input_data": self._person("of a caller who is refused")}
        for authorization in ("", "Bearer nothing", self._reader):
            self._post("/run-agent", body, Authorization=authorization)
        unknown = {"config": {"agents": ["missing"]}, "input_data": body["input_data"]}
        self._post("/run-basket/batch", {"items": [unknown] * (BURST + 1)}, Authorization=self._limited)

        def is_limited() -> bool:
            return bool(self._post("/run-agent", body, Authorization=self._limited)["status"] == codes.too_many)

        wait_until(is_limited, 10, "the batch has used up what the key may send")
