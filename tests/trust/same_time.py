"""Measures whether the time of a refusal says if a run exists: that of a foreign id beside that of an unknown one."""

from __future__ import annotations

import http.client
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import requests

from shared.domain.access.caller import Role
from tests.stack import Stack
from tests.trust.party import key_service, make_credential

RUNS = 50
_PATHS = ("/executions/{}", "/executions/{}/result")


def measure_refusals(stack: Stack, times: int) -> Iterator[str]:
    """Yield the median time of ``times`` refusals of each kind, which are sent in turns."""
    rng = random.Random(1)
    with key_service(stack) as keys:
        owner = make_credential(keys, Role.INTEGRATOR, "owner").key
        stranger = make_credential(keys, Role.INTEGRATOR, "stranger").key
    body = {"items": [{"basket_name": "working_test"}] * RUNS}
    made = requests.post(
        f"{stack.url}/run-basket/batch", json=body, headers={"Authorization": f"Bearer {owner}"}, timeout=10
    ).json()
    foreign = [item["execution_id"] for item in made["items"]]
    parts = urlsplit(stack.url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)) as connection:
        for path in _PATHS:
            seconds: dict[str, list[float]] = {"foreign": [], "unknown": []}
            for _ in range(times):
                pair = {"foreign": (known := rng.choice(foreign)), "unknown": f"{known[:11]}{rng.getrandbits(64):016x}"}
                for kind in rng.sample(sorted(pair), 2):
                    seconds[kind].append(_refusal_s(connection, path.format(pair[kind]), f"Bearer {stranger}"))
            medians = {kind: statistics.median(each) * 1e6 for kind, each in seconds.items()}
            tenth = {kind: statistics.quantiles(each, n=10)[0] * 1e6 for kind, each in seconds.items()}
            yield (
                f"404 of {path.format('ID')}, {times} of each in turns: median {medians['foreign']:.0f} us foreign, "
                f"{medians['unknown']:.0f} us unknown (ratio {medians['foreign'] / medians['unknown']:.3f}); "
                f"first decile {tenth['foreign']:.0f} and {tenth['unknown']:.0f} us"
            )


def _refusal_s(connection: http.client.HTTPConnection, path: str, authorization: str) -> float:
    began = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": authorization})
    response = connection.getresponse()
    response.read()
    seconds = time.perf_counter() - began
    assert response.status == 404, f"{path}: {response.status}"
    return seconds
