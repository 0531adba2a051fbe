"""One agent's folder: reads its spec and compiles its schemas, or says in words what is wrong with them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from shared.catalogue.schema_validator import CompiledSchema
from shared.domain.definitions.agent_spec import AgentSpec, parse_agent_spec, readable_fields
from shared.domain.definitions.marked_fields import has_marks
from shared.domain.definitions.unavailability import REASON_MAX_CHARS
from shared.errors import SpecError

SPEC_FILE: Final = "agent_spec.json"
SPEC_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """An agent whose spec is right, with its compiled schemas."""

    spec: AgentSpec
    folder: Path
    input: CompiledSchema
    output: CompiledSchema
    marks_input: bool = False
    marks_output: bool = False


@dataclass(frozen=True, slots=True)
class BrokenAgent:
    """An agent whose spec is wrong: no process can run it.

    ``faults`` are for operators and name files of the server; ``reason`` is for clients. ``fields`` are those of the
    spec that could be read.
    """

    name: str
    faults: tuple[str, ...]
    reason: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains, as far as they could be read."""
        return tuple(self.fields.get("domains", ()))


def read_agent(folder: Path) -> AgentEntry | BrokenAgent:
    """Return the agent in ``folder``, under the folder's name if its spec is wrong; raises nothing."""
    try:
        return load_entry(folder)
    except SpecError as error:
        faults = tuple(error.message.splitlines())
        reason = "; ".join(faults).replace(f"{folder}/", "")
        if len(reason) > REASON_MAX_CHARS:
            reason = f"{reason[:REASON_MAX_CHARS]}…"
        return BrokenAgent(folder.name, faults, reason, _readable_fields(folder))


def load_entry(folder: Path) -> AgentEntry:
    """Return the agent in ``folder``; raises SpecError with a line for each fault.

    Faults are those of ``parse_agent_spec``, invalid schemas, samples that break their schema, and a missing module.
    """
    path = folder / SPEC_FILE
    try:
        raw = _read_json(path)
    except FileNotFoundError as error:
        raise SpecError(f"{path}: is missing") from error
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    return _compile_entry(parse_agent_spec(raw, str(path)), folder, str(path))


def _read_json(path: Path) -> Any:
    """Return what is in a file; raises OSError, and ValueError for what is no JSON that Bucket takes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # the read of a named pipe or a device would never end
        raise ValueError("it is no regular file")
    if status.st_size > SPEC_MAX_BYTES:
        raise ValueError(f"it has {status.st_size} bytes; at most {SPEC_MAX_BYTES} are read")
    value = orjson.loads(path.read_bytes())
    try:
        orjson.dumps(value)  # reads 1,024 levels, and writes 254, which is what all that handles the spec can take
    except TypeError as error:
        raise ValueError(f"it is nested over 250 levels ({error})") from error
    return value


def _readable_fields(folder: Path) -> Mapping[str, Any]:
    try:
        return readable_fields(_read_json(folder / SPEC_FILE))
    except (OSError, ValueError):
        return {}


def _compile_entry(spec: AgentSpec, folder: Path, source: str) -> AgentEntry:
    checks: dict[str, CompiledSchema] = {}
    faults: list[str] = []
    for part, schema, sample in (
        ("input", spec.input_schema, spec.sample_input),
        ("output", spec.output_schema, spec.sample_output),
    ):
        try:
            checks[part] = CompiledSchema(schema, f"{source}: {part}_schema")
        except SpecError as error:
            faults.append(error.message)
            continue
        faults += [
            f"{source}: sample_{part} breaks {part}_schema at {fault.pointer or 'its root'}: {fault.message}"
            for fault in checks[part].find_faults(sample)
        ]
    module = folder / f"{spec.entry.partition(':')[0]}.py"
    if not module.is_file():
        faults.append(f"{source}: entry is {spec.entry!r} but there is no {module.name} beside it")
    if faults:
        raise SpecError("\n".join(faults))
    marks_input, marks_output = has_marks(spec.input_schema), has_marks(spec.output_schema)
    return AgentEntry(spec, folder, checks["input"], checks["output"], marks_input, marks_output)
