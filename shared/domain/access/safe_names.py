"""What of a request's path may stand in logs and in the audit log: nothing that could be a key or a token."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9 _.:+-]{1,100}", re.ASCII)
# How a key begins, and every token of JSON: also a part of one is recognised.
_CREDENTIALS: Final = re.compile(r"bkt_|eyJ", re.ASCII | re.IGNORECASE)


def is_safe_name(text: object) -> bool:
    """Return whether the text may be shown: it looks like an id or a name, and not like a part of a key or token."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None and _CREDENTIALS.search(text) is None


def are_safe_names(texts: Iterable[object]) -> bool:
    """Return whether all of the texts may be shown."""
    return all(map(is_safe_name, texts))
