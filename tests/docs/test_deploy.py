"""The deployment files and their guide say the same as the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from compose.embedded.bucket_process_plans import COMMANDS
from shared.limits import DEFAULT_RATE_LIMITS
from shared.outbound_hosts import OutboundHosts
from shared.setting_readers import VARIABLES
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose" / "compose.yaml").read_text(encoding="utf-8")
SECRETS = {"REDIS_PASSWORD", "MONGODB_PASSWORD", "MONGODB_ROOT_PASSWORD", "MONGODB_KEY"}


def test_the_guide_lists_every_setting_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", GUIDE, re.MULTILINE))
    settings = Settings()
    defaults = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    assert listed == {variable: written(defaults[name]) for name, (variable, _) in VARIABLES.items()}


def written(default: object) -> str:
    if default in (None, (), "", {}, OutboundHosts()):
        return "none"
    if default is DEFAULT_RATE_LIMITS:
        return "generous"  # docs/limits.md has the numbers
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_compose_file_passes_every_setting_on() -> None:
    own = {"HOST", "PORT", "BUCKET_FAULTS"}  # two are set by the image, one is for tests only
    passed = set(re.findall(r"^  ([A-Z_]+):", COMPOSE, re.MULTILINE))
    missing = {variable for variable, _ in VARIABLES.values()} - own - passed
    assert missing == set()


def test_the_compose_file_has_no_default_for_a_secret() -> None:
    used = re.findall(r"(?<!\$)\$\{([A-Z_]+)(:?[?-])", COMPOSE)
    assert {name for name, kind in used if kind == ":?"} == SECRETS
    assert not {name for name, kind in used if kind != ":?"} & SECRETS
    example = (ROOT / "compose" / "env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE)) == SECRETS


def test_workers_can_be_scaled() -> None:
    worker = COMPOSE.partition("\n  worker: &worker\n")[2].partition("\n\n")[0]
    assert worker
    assert "ports:" not in worker
    assert "container_name" not in COMPOSE


def test_procfile_image_and_compose_run_the_same_commands() -> None:
    procfile = dict(re.findall(r"^(\w+): (.+)$", (ROOT / "Procfile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = {name: " ".join(argv) for name, argv in COMMANDS.items()}
    commands["web"] = commands.pop("api")
    every_queue = commands.pop("worker")  # make up has one worker for both, the Procfile a pool for each
    commands |= {"worker": f"{every_queue} --queues default", "worker_long": f"{every_queue} --queues long"}
    assert procfile == commands
    listed = {name: ", ".join(f'"{word}"' for word in command.split()) for name, command in commands.items()}
    assert f"CMD [{listed['web']}]" in (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
    assert f"command: [{listed['worker']}]" in COMPOSE
    assert f"command: [{listed['worker_long']}]" in COMPOSE
    assert f"command: [{listed['reconciler']}]" in COMPOSE
    assert all(f"`{command}`" in GUIDE for command in commands.values())


def test_the_guide_names_the_probe_that_the_compose_file_uses() -> None:
    assert '["CMD", "python", "-m", "compose.healthcheck", "worker"]' in COMPOSE
    assert "\npython -m compose.healthcheck worker " in GUIDE
