"""Made-up ``Authorization`` headers: keys with small faults, keys that no longer hold, and what is no key at all."""

from __future__ import annotations

import random
import string
from typing import Final

from shared.domain.access import key_format

_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def with_other_secret(key: str) -> str:
    """Return a key with the id of ``key``, another secret, and the right checksum."""
    made, made_id = key_format.new_key()
    head = made[:-6].replace(made_id, key.split("_")[1])
    return head + key_format._checksum(head)
