"""Agents of installed packages: the folders that the entry points ``bucket.agents`` name; it imports none of them.

The value of an entry point is the dotted name of a package, or of a module in one. Only its first part is looked up, as
``import`` would, which runs no code of it; the rest is taken as folders below. The folder that is found holds
``agent_spec.json``, or several folders that do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from itertools import chain
from pathlib import Path
from typing import Final

import structlog

from shared.catalogue.agent_entry import SPEC_FILE, BrokenAgent
from shared.errors import SpecError

ENTRY_POINT_GROUP: Final = "bucket.agents"


def find_packaged_agents() -> Iterator[Path | BrokenAgent]:
    """Yield the agents' folders, by the entry points' names; an entry point that leads to none is a broken agent."""
    found: set[Path] = set()
    for entry_point in sorted(_entry_points(), key=lambda point: (point.name, point.value)):
        try:
            folders = _agent_folders_of(entry_point)
        except SpecError as error:
            yield BrokenAgent(entry_point.name, (f"{_origin_of(entry_point)}: {error.message}",), error.message)
            continue
        yield from (folder for folder in folders if folder not in found)
        found.update(folders)


def _entry_points() -> Iterable[EntryPoint]:
    """Return the entry points of all packages; those of a package whose metadata is malformed are left out."""
    try:
        return entry_points(group=ENTRY_POINT_GROUP)
    except Exception:  # noqa: BLE001  (it names no package, and any of them may be the malformed one)
        return list(chain.from_iterable(map(_entry_points_of, distributions())))


def _entry_points_of(distribution: Distribution) -> Iterable[EntryPoint]:
    try:
        return distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    except Exception as error:  # noqa: BLE001
        structlog.get_logger().warning(
            "the entry points of a package cannot be read", package=distribution.metadata["Name"], reason=repr(error)
        )
        return ()


def _agent_folders_of(entry_point: EntryPoint) -> list[Path]:
    folder = _package_folder(entry_point.value)
    if (folder / SPEC_FILE).is_file():
        return [folder]
    try:
        folders = sorted(path.parent for path in folder.glob(f"[!._]*/{SPEC_FILE}"))
    except OSError as error:
        raise SpecError(f"the folder of {entry_point.value} cannot be read: {error.strerror}") from error
    if not folders:
        raise SpecError(f"the folder of {entry_point.value} holds no {SPEC_FILE}, nor does a folder in it")
    return folders


def _package_folder(value: str) -> Path:
    """Return the folder of a package, or of the module in it; raises SpecError if there is none."""
    top, *parts = value.partition(":")[0].strip().split(".")
    try:
        spec = importlib.util.find_spec(top)
    except Exception as error:
        raise SpecError(f"package {top} cannot be found: {type(error).__name__}") from error
    if spec is None:
        raise SpecError(f"package {top} is not installed")
    if spec.submodule_search_locations is None:
        raise SpecError(f"{top} is a single module; an agent is a folder, so name a package")
    for location in map(Path, spec.submodule_search_locations):
        folder = location.joinpath(*parts)
        if folder.is_dir():
            return folder
        if parts and folder.with_name(f"{folder.name}.py").is_file():
            return folder.parent
    raise SpecError(f"package {top} has no {'/'.join(parts)}" if parts else f"package {top} has no folder")


def _origin_of(entry_point: EntryPoint) -> str:
    distribution = f" of {entry_point.dist.name}" if entry_point.dist is not None else ""
    return f"entry point {entry_point.name} = {entry_point.value}{distribution}"
