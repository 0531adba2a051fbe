"""A real Prometheus that scrapes a stack each second, with the alerts of ops/prometheus at a faster pace.

The copy of the rules that it loads differs in times and thresholds alone, so that a test can wait for an alert: what is
written in the rules themselves is checked by ``promtool test rules`` (``make check``).
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from compose.embedded.bucket_process_plans import fetch_json
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan
from tests.stack import Stack
from tests.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "ops" / "prometheus" / "rules.yml"
BOARD: Final = ROOT / "ops" / "grafana" / "bucket.json"
METRIC: Final = re.compile(r"\bbucket_[a-z_]+")
_WINDOW: Final = re.compile(r"\[\d+m\]")
_FASTER: Final = {
    "BucketQueueOld": ("> 300", "> 3"), "BucketFeedLags": ("> 60", "> 5"), "BucketConsumerLags": ("> 10000", "> 2"),
    "BucketDeadLetters": (">= 10", ">= 2"), "BucketWorkersLost": (">= 5", ">= 1"),
    "BucketStoreSlow": ("> 0.25", "> 0.5"),
}  # fmt: skip
"""The thresholds that are lowered, so that a few runs reach them; a busy machine must not look like a slow store."""
_LASTS: Final = {"BucketStoreSlow": "20s"}
"""Longer than the window, as in the rules themselves: a single slow call must not do."""


def faster_rules() -> dict[str, Any]:
    """Return the rules with short times and low thresholds."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = _WINDOW.sub("[15s]", rule["expr"])
        if rule["alert"] in _FASTER:
            before, after = _FASTER[rule["alert"]]
            assert before in rule["expr"], f"{rule['alert']}: {before} is no longer its threshold"
            rule["expr"] = rule["expr"].replace(before, after)
        rule["for"] = "0s" if "for" not in rule else _LASTS.get(rule["alert"], "2s")
    return rules


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        reply = fetch_json(f"{self.url}/api/v1/query?{urlencode({'query': expression})}")
        assert reply["status"] == "success", reply
        found: list[dict[str, Any]] = reply["data"]["result"]
        return found

    def names(self) -> set[str]:
        """Return the names of all metrics that it has."""
        return set(fetch_json(f"{self.url}/api/v1/label/__name__/values")["data"])

    def firing(self) -> dict[str, dict[str, str]]:
        """Return the alerts that fire, with their labels."""
        alerts = fetch_json(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return {each["labels"]["alertname"]: each["labels"] for each in alerts if each["state"] == "firing"}

    def wait_for(self, *alerts: str, within_s: float = 30) -> dict[str, dict[str, str]]:
        """Wait until these alerts fire; return all that fire."""
        wait_until(lambda: set(alerts) <= set(self.firing()), within_s, f"{alerts} fire, not only {set(self.firing())}")
        return self.firing()

    def wait_until_quiet(self, within_s: float = 40) -> None:
        """Wait until no alert fires."""
        with suppress(AssertionError):
            wait_until(lambda: not self.firing(), within_s)
        assert not (firing := self.firing()), f"after {within_s:g} s: {firing}"


def _is_ready(url: str) -> bool:
    # Not by the library requests, whose replies are checked against the contract of Bucket.
    return "version" in fetch_json(f"{url}/api/v1/status/buildinfo")["data"]


@contextmanager
def running_prometheus(stack: Stack, root: Path, group_reaper: GroupReaper) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the API of ``stack``, with its data and its rules in ``root``."""
    program = shutil.which("prometheus")
    assert program is not None, "prometheus is missing: apt-get install prometheus"
    rules, config = root / "rules.yml", root / "prometheus.yml"
    rules.write_text(yaml.safe_dump(faster_rules()), encoding="utf-8")
    scrape = {
        "job_name": "bucket",
        "static_configs": [{"targets": [stack.url.removeprefix("http://")]}],
    }
    text = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [scrape],
    }
    config.write_text(yaml.safe_dump(text), encoding="utf-8")
    with closing(socket.socket()) as port:  # bound for as long as the server listens: the port is nobody else's
        port.bind(("127.0.0.1", 0))
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = f"127.0.0.1:{port.getsockname()[1]}"
        url = f"http://{address}"
        argv = (
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={root / 'data'}",
            f"--web.listen-address={address}",
        )
        plan = ChildPlan("prometheus", argv, lambda: _is_ready(url))
        child = Child(plan, root / "prometheus.log", group_reaper)
        child.start()
        try:
            child.wait_ready()
            yield Prometheus(url)
        finally:
            child.kill()
