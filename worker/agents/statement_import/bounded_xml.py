"""Parses XML from outside with the standard library's expat, within limits: no DTD, no entities, no depth without end.

Each entry is given to a callback as soon as it is complete, with its line, and then forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from xml.parsers import expat

from worker.agent_errors import InvalidInputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DEPTH_MAX: Final = 64
ELEMENTS_MAX: Final = 200_000
"""How many elements may be held at once; those of a finished entry are given back."""

Handlers = dict[str, Callable[["Element", int], None]]


def parse_xml(text: str, handlers: Handlers) -> str:
    """Call a handler with each element of its name, when it ends; return the root's name, behind its namespace.

    Names are local names. Raises InvalidInputError for what is no XML, or hostile.
    """
    # The text is decoded already, whatever encoding its first line declares.
    parser = expat.ParserCreate("utf-8", " ")
    tree = _BoundedTree(parser, handlers)
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.add_text
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        fault = expat.ErrorString(error.code)
        raise InvalidInputError(f"the XML cannot be read: {fault} in line {error.lineno}") from None
    return tree.root


def text_at(element: Element, *paths: str) -> str:
    """Return the text of the first of the paths that has one, in one line; "" if none has."""
    for path in paths:
        found = element.findtext(path)
        if found and found.strip():
            return " ".join(found.split())
    return ""


class _BoundedTree:
    """The elements that are open, and what they hold."""

    def __init__(self, parser: expat.XMLParserType, handlers: Handlers) -> None:
        # Loaded here: only XML needs it, and it costs 2 MB.
        from xml.etree.ElementTree import Element

        self.root = ""
        self._new_element = Element
        self._parser = parser
        self._handlers = handlers
        self._open: list[tuple[Element, int]] = []
        self._held = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._held += 1
        if len(self._open) >= DEPTH_MAX:
            raise InvalidInputError(f"the XML is nested deeper than {DEPTH_MAX} levels")
        if self._held > ELEMENTS_MAX:
            raise InvalidInputError(f"the XML has more than {ELEMENTS_MAX:,} elements in one entry, or outside of all")
        self.root = self.root or name
        element = self._new_element(_local(name), {_local(key): value for key, value in attributes.items()})
        if self._open:
            self._open[-1][0].append(element)
        self._open.append((element, self._parser.CurrentLineNumber))

    def end(self, _: str) -> None:
        element, line = self._open.pop()
        if handler := self._handlers.get(element.tag):
            handler(element, line)
            self._held -= sum(1 for _ in element.iter())
            if self._open:
                self._open[-1][0].remove(element)

    def add_text(self, data: str) -> None:
        element = self._open[-1][0]
        # Text after a child belongs to no leaf, and only leaves are read.
        if not len(element):
            element.text = (element.text or "") + data


def _refuse(*_: Any) -> None:
    raise InvalidInputError("the XML has a document type or entities (DOCTYPE, ENTITY), which statements never have")


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
