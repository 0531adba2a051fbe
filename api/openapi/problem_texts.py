"""The texts of ``/problems/<code>``: what docs/errors.md says about each error code, as a file of this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

PROBLEM_TEXTS_FILE: Final = Path(__file__).with_name("problem_texts.json")
"""Written by ``make openapi``."""


@cache
def load_problem_texts() -> Mapping[str, str]:
    """Return the texts by error code."""
    texts: Mapping[str, str] = json.loads(PROBLEM_TEXTS_FILE.read_bytes())
    return texts
