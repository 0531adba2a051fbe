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
CODE = (*PRODUCT, "client", "benchmarks", "tests")
INNER_NAMES = {"routes", "schemas", "replies", "agent"}
"""What the modules of a subject are called in each of them."""
ENTRY_POINTS = {"app", "__main__"}
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*CODE, 'docs', 'findings', '.ci'))})/[\w./-]*\w")
REFERENCE = re.compile(r":(?:mod|func|class|meth|data):`~?([\w.]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s#]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FENCED_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
ENGINE = ROOT / "docs" / "engine.md"
SECTION = re.compile(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", re.MULTILINE)
CITATION = re.compile(r"engine\.md(?:\]\([^)]*\))?,?\s+\(?section\s+(\d+(?:\.\d+)*)")
OUTSIDE = re.compile(r"\b(?:ENGINE|DESIGN|CONTRACT|STYLE)\b(?:\.md)?|\breliability\.md|\.\./shared\b|\bnotes/")
MODULES_MAX = 15


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def prose_of(path: Path) -> tuple[str, ...]:
    """The docstrings of a module, those of its constants and fields too, and its comments."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    statements = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    strings = (node.value for node in statements if isinstance(node, ast.Constant) and isinstance(node.value, str))
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    return (*strings, *comments)


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
    missing = [reference for reference in REFERENCE.findall(text_of(path)) if not leads_somewhere(path, reference)]
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


def leads_somewhere(path: Path, reference: str) -> bool:
    """Return whether each part of a dotted name exists: the module, its name, the attribute of a class.

    A name that begins with no package of this repository is looked up in the module at ``path``, which refers to it.
    """
    parts = reference.split(".")
    if parts[0] in CODE:
        return leads_into_module(parts)
    return resolves(path, parts) if len(parts) > 1 else parts[0] in defined_in(path)


def leads_into_module(parts: list[str]) -> bool:
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if module.exists():
            return length == len(parts) or resolves(module, parts[length:])
    return False


@cache
def top_level_of(path: Path) -> dict[str, ast.stmt]:
    return names_of(ast.parse(path.read_text(encoding="utf-8")).body)


def names_of(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return the names that the statements of a module or class define in it, each with its statement."""
    names: dict[str, ast.stmt] = {}
    for statement in body:
        is_scope = isinstance(statement, ast.ClassDef | ast.FunctionDef)
        names |= dict.fromkeys(names_in(iter([statement]) if is_scope else ast.walk(statement)), statement)
    return names


def resolves(path: Path, parts: list[str]) -> bool:
    """Return whether a module has the name ``parts[0]``, and its class has the attributes that follow."""
    statement = top_level_of(path).get(parts[0])
    if isinstance(statement, ast.ImportFrom):
        module = (statement.module or "").split(".")
        return module[0] not in CODE or leads_into_module([*module, *parts])
    if statement is None or len(parts) == 1 or isinstance(statement, ast.Import):
        return statement is not None
    return isinstance(statement, ast.ClassDef) and len(parts) == 2 and has_attribute(path, statement, parts[1])


def has_attribute(path: Path, owner: ast.ClassDef, name: str) -> bool:
    """Return whether a class has an attribute: of its body, of ``self``, or of a base; other packages' may have any."""
    stored = (node for node in ast.walk(owner) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    own = {node.attr for node in stored if ast.unparse(node.value) == "self"} | set(names_of(owner.body))
    bases = [ast.unparse(base).partition("[")[0].split(".") for base in owner.bases]
    return name in own or any(resolves(path, [*base, name]) for base in bases)


@pytest.mark.parametrize("document", documents(), ids=named)
def test_every_anchor_of_a_link_is_a_heading(document: Path) -> None:
    links = LINK.findall(text_of(document))
    local = [
        (document.parent / target if target else document, anchor) for target, anchor in links if "//" not in target
    ]
    assert not [f"{named(target)}#{anchor}" for target, anchor in local if anchor not in anchors_of(target.resolve())]


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    counts: defaultdict[str, int] = defaultdict(int)
    anchors = set()
    for heading in HEADING.findall(FENCED_CODE.sub("", text_of(document))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return frozenset(anchors)


@pytest.mark.parametrize("path", [*documents(), *python_files(*CODE)], ids=named)
def test_every_section_of_the_engine_that_is_cited_exists(path: Path) -> None:
    text = text_of(path)
    cited = re.findall(r"\bsection (\d+(?:\.\d+)*)", text) if path == ENGINE else CITATION.findall(text)
    assert not set(cited) - set(SECTION.findall(text_of(ENGINE)))


@pytest.mark.parametrize("path", [*documents(), *python_files(*CODE)], ids=named)
def test_no_reference_leads_out_of_the_repository(path: Path) -> None:
    if path == Path(__file__):
        return
    assert not OUTSIDE.findall(text_of(path))
