"""Names and references: one word for one thing, and nothing that is named does not exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("api", "worker", "shared", "compose")
CODE = (*PRODUCT, "benchmarks", "tests")
INNER_NAMES = {"routes", "schemas", "replies", "agent"}
"""What the modules of a subject are called in each of them."""
ENTRY_POINTS = {"app"}
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*CODE, 'docs', 'findings', '.ci'))})/[\w./-]*\w")
REFERENCE = re.compile(r":(?:mod|func|class|meth|data):`~?([\w.]+)`")
OUTSIDE = re.compile(r"\b(?:ENGINE|DESIGN|CONTRACT|STYLE)\b(?:\.md)?|\breliability\.md|\.\./shared\b|\bnotes/")
MODULES_MAX = 15


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def prose_of(path: Path) -> tuple[str, ...]:
    """The docstrings and comments of a module."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    return (*(docstring for node in nodes if (docstring := ast.get_docstring(node))), *comments)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(prose_of(path))


def test_no_two_modules_of_the_product_have_one_name() -> None:
    paths = defaultdict(list)
    for path in python_files(*PRODUCT):
        if path.stem not in INNER_NAMES | ENTRY_POINTS | {"__init__"}:
            paths[path.stem].append(named(path))
    assert not {stem: found for stem, found in paths.items() if len(found) > 1}


def test_no_two_public_classes_of_the_product_have_one_name() -> None:
    places = defaultdict(list)
    for path in python_files(*PRODUCT):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(named(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


@pytest.mark.parametrize("folder", PRODUCT)
def test_no_folder_of_the_product_has_more_modules_than_a_reader_can_overlook(folder: str) -> None:
    folders = {path.parent for path in python_files(folder)}
    crowded = {named(each): count for each in folders if (count := len(list(each.glob("*.py")))) > MODULES_MAX}
    assert not crowded


@pytest.mark.parametrize("path", [*documents(), *python_files(*CODE)], ids=named)
def test_every_path_that_is_named_exists(path: Path) -> None:
    text = text_of(path)
    missing = {found for found in PATH.findall(text) if not (ROOT / found).exists()}
    assert not {found for found in missing if not is_ignored(found)}


def is_ignored(found: str) -> bool:
    """Return whether a path names a pattern or a file that a run makes."""
    return any(mark in found for mark in ("NAME", "<", "*")) or found == "compose/.env"


@pytest.mark.parametrize("path", python_files(*CODE), ids=named)
def test_every_reference_of_a_docstring_leads_to_something(path: Path) -> None:
    names = defined_in(path)
    missing = [
        reference
        for reference in REFERENCE.findall(text_of(path))
        if reference.split(".")[0] not in names and not leads_somewhere(reference)
    ]
    assert not missing


@cache
def defined_in(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(names_in(nodes))


def names_in(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def leads_somewhere(reference: str) -> bool:
    """Return whether a dotted name is a module of this repository, or a name in one; other packages are not checked."""
    parts = reference.split(".")
    if parts[0] not in CODE:
        return True
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if module.exists():
            return length == len(parts) or parts[length] in defined_in(module)
    return False


@pytest.mark.parametrize("path", [*documents(), *python_files(*CODE)], ids=named)
def test_no_reference_leads_out_of_the_repository(path: Path) -> None:
    if path == Path(__file__):
        return
    assert not OUTSIDE.findall(text_of(path))
