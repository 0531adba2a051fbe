"""The manifests in ``ops/kubernetes`` say the same as the code: commands, ports, probes, settings and times."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from api.auth.route_permissions import ROUTE_PERMISSIONS
from compose.healthcheck import CHECKS
from shared.domain.access.caller import Permission
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.setting_readers import VARIABLES
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "ops" / "kubernetes"
GUIDE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
HAND_BACK_S = 30


def documents() -> list[dict[str, Any]]:
    return [each for path in sorted(MANIFESTS.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in documents() if each["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind("Deployment").items()}


def settings_file() -> dict[str, str]:
    lines = (MANIFESTS / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings() -> Settings:
    with mock.patch.dict(os.environ, settings_file(), clear=True):
        return Settings.from_environ()


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, _, command in (line.partition(":") for line in lines)}


def test_the_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    others = {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == others
    [generated] = kustomization["configMapGenerator"]
    assert [(MANIFESTS / name).is_file() for name in generated["envs"]] == [True]
    assert {name for each in pods().values() for name in names_of("configMapRef", each)} == {generated["name"]}


def test_the_processes_are_those_of_the_procfile() -> None:
    commands = {name: each["containers"][0]["command"] for name, each in pods().items()}
    expected = procfile()
    assert commands == {
        "bucket-api": expected["web"],
        "bucket-worker": expected["worker"],
        "bucket-worker-long": expected["worker_long"],
        "bucket-reconciler": expected["reconciler"],
    }


def test_every_setting_is_known_and_can_be_read() -> None:
    known = {variable for variable, _ in VARIABLES.values()}
    assert settings_file().keys() <= known
    assert settings() != Settings()


def test_no_secret_stands_in_the_files_and_the_guide_names_each() -> None:
    assert not {kind for kind in (each["kind"] for each in documents()) if kind == "Secret"}
    secret = {"REDIS_URL", "MONGODB_URL", "BUCKET_KEY_PEPPER", "BUCKET_ENCRYPTION_KEYS"}
    assert not settings_file().keys() & secret
    named = {name for each in pods().values() for name in names_of("secretRef", each)}
    named |= {
        each["name"] for auth in of_kind("TriggerAuthentication").values() for each in auth["spec"]["secretTargetRef"]
    }
    assert named == {"bucket", "bucket-agents", "bucket-autoscaler"}
    assert [name for name in named if f"create secret generic {name} " not in GUIDE] == []
    assert [name for name in secret if name not in GUIDE] == []


def names_of(kind: str, pod: dict[str, Any]) -> Iterator[str]:
    for source in pod["containers"][0]["envFrom"]:
        if kind in source:
            yield source[kind]["name"]


def test_ports_and_probes_are_those_of_the_api() -> None:
    api = pods()["bucket-api"]["containers"][0]
    assert f"PORT={api['ports'][0]['containerPort']}" in DOCKERFILE
    assert api["ports"][0]["containerPort"] == Settings().port
    probes = [api[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    for probe in probes:
        assert probe["port"] == api["ports"][0]["name"]
        assert ROUTE_PERMISSIONS[f"GET {probe['path']}"] in {Permission.PUBLIC, Permission.OPTIONAL}, (
            "no probe has a key"
        )
    assert probes[1]["path"] == "/ready"
    assert probes[2]["path"] != "/ready", "a restart of the API brings no store back"
    service = of_kind("Service")["bucket-api"]["spec"]
    assert service["ports"][0]["port"] == Settings().port
    assert service["ports"][0]["targetPort"] == api["ports"][0]["name"]


def test_the_probes_of_workers_are_checks_that_exist() -> None:
    probes = {name: each["containers"][0].get("livenessProbe") for name, each in pods().items() if "worker" in name}
    assert len(probes) == 2
    for probe in probes.values():
        *command, check = probe["exec"]["command"]
        assert command == ["python", "-m", "compose.healthcheck"]
        assert check in CHECKS
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300, (
            "an outage of Redis is no reason for a restart"
        )


def test_a_worker_has_time_to_drain_and_the_api_to_reply() -> None:
    given = settings()
    for name, pod in pods().items():
        if "worker" in name:
            assert pod["terminationGracePeriodSeconds"] >= given.drain_s + given.grace_s + HAND_BACK_S
    api = pods()["bucket-api"]
    [_, pause_s] = api["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    graceful_s = int((ROOT / "api" / "gunicorn.py").read_text().partition("graceful_timeout = ")[2].split()[0])
    assert api["terminationGracePeriodSeconds"] >= int(pause_s) + graceful_s


@pytest.mark.parametrize("name", ["bucket-api", "bucket-worker", "bucket-worker-long", "bucket-reconciler"])
def test_every_process_runs_without_rights(name: str) -> None:
    pod = pods()[name]
    [container] = pod["containers"]
    user = pod["securityContext"]
    assert f"useradd --uid {user['runAsUser']} --gid {user['runAsGroup']} " in DOCKERFILE
    assert user["runAsNonRoot"] is True
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    [mount], [volume] = container["volumeMounts"], pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/tmp"}  # noqa: S108  all that a process writes is there
    assert volume["emptyDir"].keys() == {"sizeLimit"}


def test_selectors_find_their_pods_and_every_process_has_a_disruption_budget() -> None:
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in of_kind("Deployment").items()}
    for name, each in of_kind("Deployment").items():
        assert each["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    budgets = of_kind("PodDisruptionBudget")
    assert budgets.keys() == labels.keys()
    for name, budget in budgets.items():
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    assert of_kind("Service")["bucket-api"]["spec"]["selector"].items() <= labels["bucket-api"].items()
    image = {pod["containers"][0]["image"] for pod in pods().values()}
    assert image == {"bucket"}, "no database is bundled"


def test_what_is_scaled_has_no_number_of_its_own() -> None:
    targets = {
        each["spec"]["scaleTargetRef"]["name"]
        for kind in ("ScaledObject", "HorizontalPodAutoscaler")
        for each in of_kind(kind).values()
    }
    assert targets == {"bucket-api", "bucket-worker", "bucket-worker-long"}
    for name, each in of_kind("Deployment").items():
        assert ("replicas" in each["spec"]) is (name not in targets)


def test_workers_are_scaled_by_the_number_that_the_api_replies_with() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    operation = document["paths"]["/executions/stats"]["get"]
    known = document["components"]["parameters"]
    parameters = {
        (known[each["$ref"].rpartition("/")[2]] if "$ref" in each else each)["name"] for each in operation["parameters"]
    }
    given = settings()
    queues = set()
    for scaler in of_kind("ScaledObject").values():
        [trigger] = scaler["spec"]["triggers"]
        metadata = trigger["metadata"]
        url = urlsplit(metadata["url"])
        assert (url.hostname, url.port, url.path) == ("bucket-api", Settings().port, "/executions/stats")
        query = {name: value for name, [value] in parse_qs(url.query).items()}
        assert query.keys() <= parameters
        assert int(query["slots_per_worker"]) == given.worker_concurrency
        assert metadata["valueLocation"] == f"queues.{query['queue']}.wanted_workers"
        assert float(metadata["targetValue"]) == 1
        queues.add(query["queue"])
        worker = pods()[scaler["spec"]["scaleTargetRef"]["name"]]["containers"][0]["command"]
        assert worker[-1] == query["queue"]
    assert queues == set(QUEUE_NAMES)
