"""The file that describes an integration: what it means, and that all of its faults are reported together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bucket_client import BucketError
from bucket_client.integration_check import DefinitionError, load_definition

GOOD = """
name = "nightly-report"
basket = "finance_daily_check"
mapping = "docs/mapping.md"
command = ["python", "integration.py"]

[[samples]]
input = { transactions = [], since = "2026-01-01" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "integration.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load_definition(written(folder, text))
    return sorted(caught.value.faults)


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path: Path) -> None:
    definition = load_definition(written(tmp_path, GOOD))
    assert (definition.name, definition.basket) == ("nightly-report", "finance_daily_check")
    assert (definition.folder, definition.mapping) == (tmp_path, tmp_path / "docs" / "mapping.md")
    assert definition.command == ("python", "integration.py")
    assert definition.samples == ({"transactions": [], "since": "2026-01-01"},)
    assert definition.timeout_s == 120


def test_the_time_limit_may_be_given(tmp_path: Path) -> None:
    assert load_definition(written(tmp_path, "timeout_s = 2.5\n" + GOOD)).timeout_s == 2.5


def test_a_misspelt_key_is_refused_with_the_right_one_and_not_reported_as_missing_too(tmp_path: Path) -> None:
    assert faults_of(tmp_path, GOOD.replace("mapping =", "maping =")) == [
        "maping is not a known key: did you mean 'mapping'?"
    ]
    assert faults_of(tmp_path, GOOD.replace("input =", "inputs =")) == [
        "samples[0].inputs is not a known key: did you mean 'input'?"
    ]


def test_an_unknown_key_that_resembles_none_is_refused_with_all_that_are_known(tmp_path: Path) -> None:
    [fault] = faults_of(tmp_path, "colour = 1\n" + GOOD)
    assert fault == (
        "colour is not a known key: remove it; the keys are name, basket, mapping, command, timeout_s, samples"
    )


def test_all_faults_are_reported_together_each_with_its_key_and_what_to_do(tmp_path: Path) -> None:
    text = """
        name = ""
        command = "python integration.py"
        timeout_s = true
        samples = [{ input = { at = 2026-01-01, list = [inf] } }, { input = 1 }, {}]
    """
    faults = faults_of(tmp_path, text)
    assert [fault.split()[0] for fault in faults] == [
        "basket", "command", "mapping", "name", "samples[0].input.at", "samples[0].input.list[0]",
        "samples[1].input", "samples[2].input", "timeout_s",
    ]  # fmt: skip
    for advice in ("write it as a text", "finite number", "as in", "array of texts", "greater than 0"):
        assert any(advice in fault for fault in faults)


@pytest.mark.parametrize("samples", ["samples = []", "samples = {}", "samples = [1]", ""])
def test_there_must_be_a_sample(tmp_path: Path, samples: str) -> None:
    [fault] = faults_of(tmp_path, GOOD.partition("[[samples]]")[0] + samples)
    assert "samples" in fault
    assert "[[samples]]" in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [("name = ", "is not valid TOML"), ('name = "\\q"', "is not valid TOML"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, text: str | None, fault: str) -> None:
    path = tmp_path / "missing.toml" if text is None else written(tmp_path, text)
    with pytest.raises(DefinitionError, match=fault):
        load_definition(path)


def test_a_file_in_another_encoding_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "integration.toml"
    path.write_bytes('name = "größe"'.encode("latin-1"))
    with pytest.raises(BucketError, match="is not valid TOML"):
        load_definition(path)
