"""The description of an integration: reads ``integration.toml`` and reports all of its faults together."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bucket_client.errors import BucketError

TIMEOUT_S: Final = 120.0
_KEYS: Final = ("name", "basket", "mapping", "command", "timeout_s", "samples")
_REQUIRED: Final[Mapping[str, str]] = {
    "name": 'name it, as in name = "nightly-report"',
    "basket": 'name the basket that the integration runs, as in basket = "finance_daily_check"',
    "mapping": 'name the document that describes the fields, as in mapping = "mapping.md"',
    "command": 'write what runs the integration once, as in command = ["python", "integration.py"]',
    "samples": "give at least one [[samples]] with an input",
}
_SAMPLE_KEYS: Final = ("input",)
_SIMILARITY_MIN: Final = 0.6


class DefinitionError(BucketError):
    """The file cannot be used; ``faults`` has a sentence for each fault."""

    def __init__(self, path: Path, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join([f"{path}:", *(f"  {fault}" for fault in self.faults)]))


@dataclass(frozen=True, slots=True)
class IntegrationDefinition:
    """An integration: ``command`` runs it once in ``folder``; ``samples`` are inputs that ``basket`` must accept."""

    name: str
    basket: str
    mapping: Path
    command: tuple[str, ...]
    folder: Path
    samples: tuple[Mapping[str, Any], ...]
    timeout_s: float = TIMEOUT_S


def load_definition(path: str | Path) -> IntegrationDefinition:
    """Return the integration that a TOML file describes. Raises DefinitionError with all faults of the file."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(path, [f"cannot be read: {error.strerror or error}"]) from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise DefinitionError(path, [f"is not valid TOML: {error}"]) from error
    if faults := list(_faults_of(values)):
        raise DefinitionError(path, faults)
    folder = path.resolve().parent
    return IntegrationDefinition(
        name=values["name"],
        basket=values["basket"],
        mapping=folder / values["mapping"],
        command=tuple(values["command"]),
        folder=folder,
        samples=tuple(sample["input"] for sample in values["samples"]),
        timeout_s=float(values.get("timeout_s", TIMEOUT_S)),
    )


def _faults_of(values: Mapping[str, Any]) -> Iterator[str]:
    meant = set[str]()
    for key in values.keys() - set(_KEYS):
        nearest = difflib.get_close_matches(key, _KEYS, 1, _SIMILARITY_MIN)
        meant.update(nearest)
        yield _unknown(key, nearest, _KEYS)
    for key, advice in _REQUIRED.items():
        if key not in values and key not in meant:
            yield f"{key} is missing: {advice}"
    for key in ("name", "basket", "mapping"):
        if key in values and not _is_text(values[key]):
            yield f"{key} must be a text that is not empty: {_REQUIRED[key]}"
    if "command" in values and not _is_command(values["command"]):
        yield f"command must be an array of texts, the program and its arguments: {_REQUIRED['command']}"
    if "timeout_s" in values and not _is_duration(values["timeout_s"]):
        yield "timeout_s must be a number of seconds greater than 0, as in timeout_s = 120"
    if "samples" in values:
        yield from _faults_of_samples(values["samples"])


def _faults_of_samples(samples: Any) -> Iterator[str]:
    if not isinstance(samples, list) or not samples or not all(isinstance(sample, dict) for sample in samples):
        yield "samples must be an array of tables: write [[samples]], and below it input = { ... }"
        return
    for index, sample in enumerate(samples):
        place = f"samples[{index}]"
        meant = set[str]()
        for key in sample.keys() - set(_SAMPLE_KEYS):
            nearest = difflib.get_close_matches(key, _SAMPLE_KEYS, 1, _SIMILARITY_MIN)
            meant.update(nearest)
            yield _unknown(f"{place}.{key}", nearest, _SAMPLE_KEYS)
        if "input" not in sample:
            if not meant:
                yield f"{place}.input is missing: write the input of a run, as in input = {{ transactions = [] }}"
        elif not isinstance(sample["input"], dict):
            yield f"{place}.input must be a table, as in input = {{ transactions = [] }}"
        else:
            yield from _not_json(sample["input"], f"{place}.input")


def _not_json(value: Any, place: str) -> Iterator[str]:
    """Yield a fault for each value of TOML that JSON lacks: dates, times, infinities and NaN."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _not_json(member, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_json(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}, which JSON cannot express: use a finite number"
    elif not isinstance(value, str | int | float):
        yield f"{place} is a date or time, which JSON does not have: write it as a text in quotes"


def _unknown(key: str, nearest: list[str], known: Iterable[str]) -> str:
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"remove it; the keys are {', '.join(known)}"
    return f"{key} is not a known key: {advice}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_command(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value) and bool(value[0])


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
