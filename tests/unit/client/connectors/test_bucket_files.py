"""Files in the bucket folder: whole or not at all, and never outside."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bucket_client.connectors import (
    ConnectorSettings,
    FilenameRefused,
    PayloadNotJson,
    connector_metrics,
    save_to_bucket,
    save_to_bucket_async,
)


@pytest.fixture
def settings(tmp_path: Path) -> ConnectorSettings:
    return ConnectorSettings(bucket_dir=tmp_path / "data" / "bucket")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_a_payload_is_saved_and_its_folders_are_made(settings: ConnectorSettings, tmp_path: Path) -> None:
    payload = {"name": "é", "list": [1, 2.5, None, True]}
    path = save_to_bucket(payload, "runs/today/run.json", settings=settings)
    assert path == tmp_path / "data/bucket/runs/today/run.json"
    assert json.loads(path.read_bytes()) == payload
    assert files_below(tmp_path) == {"data/bucket/runs/today/run.json"}


def test_the_async_form_saves_the_same_file(settings: ConnectorSettings) -> None:
    path = asyncio.run(save_to_bucket_async({"a": 1}, "run.json", settings=settings))
    assert path.read_bytes() == save_to_bucket({"a": 1}, "other.json", settings=settings).read_bytes()


def test_the_folder_is_read_from_the_environment_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BHIV_BUCKET_DIR", str(tmp_path / "set-late"))
    assert save_to_bucket([], "run.json") == tmp_path / "set-late" / "run.json"
    monkeypatch.delenv("BHIV_BUCKET_DIR")
    monkeypatch.chdir(tmp_path)
    assert save_to_bucket([], "run.json") == tmp_path / "data" / "bucket" / "run.json"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "./",
        "..",
        "../run.json",
        "runs/../../run.json",
        "runs/..",
        "/etc/run.json",
        "run\0.json",
        "..\\run.json",
        "runs/",
        "runs/.",
        "\udcff.json",
        "n" * 256,
    ],
)
def test_a_name_that_is_no_file_inside_is_refused(settings: ConnectorSettings, tmp_path: Path, name: str) -> None:
    with pytest.raises(FilenameRefused, match="use a name like"):
        save_to_bucket({}, name, settings=settings)
    assert files_below(tmp_path) == set()


def test_the_longest_name_is_accepted(settings: ConnectorSettings) -> None:
    assert save_to_bucket({}, "n" * 255, settings=settings).exists()


def test_a_name_that_is_a_folder_is_refused(settings: ConnectorSettings) -> None:
    (settings.bucket_dir / "runs").mkdir(parents=True)
    with pytest.raises(FilenameRefused, match="is a folder"):
        save_to_bucket({}, "runs", settings=settings)


def test_a_name_below_a_file_is_refused(settings: ConnectorSettings) -> None:
    save_to_bucket({}, "runs", settings=settings)
    with pytest.raises(FilenameRefused, match="is a file"):
        save_to_bucket({}, "runs/a/b.json", settings=settings)


@pytest.mark.parametrize("name", ["out/run.json", "out/new/run.json", "link.json"])
def test_a_symbolic_link_that_leads_out_is_refused(settings: ConnectorSettings, tmp_path: Path, name: str) -> None:
    settings.bucket_dir.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (settings.bucket_dir / "out").symlink_to(outside)
    (settings.bucket_dir / "link.json").symlink_to(outside / "target.json")
    with pytest.raises(FilenameRefused, match="symbolic link"):
        save_to_bucket({}, name, settings=settings)
    assert list(outside.iterdir()) == []


def test_a_bucket_folder_that_is_itself_a_symbolic_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "bucket").symlink_to(tmp_path / "real")
    settings = ConnectorSettings(bucket_dir=tmp_path / "bucket")
    assert save_to_bucket({}, "run.json", settings=settings) == tmp_path / "real" / "run.json"


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(
    settings: ConnectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_to_bucket("old", "run.json", settings=settings)

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_to_bucket("new", "run.json", settings=settings)
    assert json.loads(path.read_bytes()) == "old"
    assert files_below(settings.bucket_dir) == {"run.json"}


def test_the_content_is_on_the_disk_before_the_name_leads_to_it(
    settings: ConnectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.bucket_dir.mkdir(parents=True)
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        is_folder = Path(f"/dev/fd/{descriptor}").is_dir()
        synced.append((is_folder, (settings.bucket_dir / "run.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    save_to_bucket({}, "run.json", settings=settings)
    assert synced == [(False, False), (True, True)]  # the file, then the rename, then the folder


@pytest.mark.parametrize("payload", [float("nan"), object()])
def test_a_payload_that_is_not_json_leaves_no_file(settings: ConnectorSettings, tmp_path: Path, payload: Any) -> None:
    with pytest.raises(PayloadNotJson):
        save_to_bucket(payload, "run.json", settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_saves_and_failures_are_counted(settings: ConnectorSettings) -> None:
    before = connector_metrics().saves
    save_to_bucket({}, "run.json", settings=settings)
    with pytest.raises(FilenameRefused):
        save_to_bucket({}, "..", settings=settings)
    after = connector_metrics().saves
    assert (after["saved"] - before["saved"], after["failed"] - before["failed"]) == (1, 1)
