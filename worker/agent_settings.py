"""The settings of an agent: the values of the variables that its spec names; they are never shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from shared.domain.definitions.agent_setting import AgentSetting

HIDDEN_MIN_CHARS: Final = 4
"""A shorter value is no secret, and to hide it would spoil every text that has these letters by chance."""


class AgentSettings(Mapping[str, str]):
    """The values by the names of their variables; its text has the names alone."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"AgentSettings({', '.join(sorted(self._values))})"


def read_settings(settings: Iterable[AgentSetting], environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Return the settings that are set; an empty one counts as not set."""
    return AgentSettings({setting.name: value for setting in settings if (value := environ.get(setting.name))})


def missing_settings(settings: Iterable[AgentSetting], values: Mapping[str, str]) -> list[str]:
    """Return the names of the required settings that have no value."""
    return [setting.name for setting in settings if setting.required and setting.name not in values]


def hide_settings(text: str, settings: Mapping[str, str]) -> str:
    """Return ``text`` with the name of the variable in place of each value, also where it is escaped."""
    forms = {form: name for name, value in settings.items() for form in _forms_of(value)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= HIDDEN_MIN_CHARS:
            text = text.replace(form, f"<{forms[form]}>")
    return text


def _forms_of(value: str) -> set[str]:
    """Return how a value may be written: as it is, in JSON, by ``repr``, and in a URL."""
    return {value, json.dumps(value)[1:-1], repr(value)[1:-1], quote(value), quote(value, safe=""), quote_plus(value)}
