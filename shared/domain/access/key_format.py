"""API keys as text: ``bkt_<id>_<secret><checksum>``, how one is made, read, and turned into the hash that is stored.

The prefix lets a scanner find a key that was published by mistake. The checksum refuses a mistyped key without a look
at the store. The secret has 256 random bits, so a fast hash is as good as a slow one; it is keyed by a random salt of
the key itself and by the server's pepper, if there is one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import Final

_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_CHARS: Final = 12
_SECRET_CHARS: Final = 43  # 62 ** 43 is just above 2 ** 256
_CHECKSUM_CHARS: Final = 6
KEY_ID_PATTERN: Final = re.compile(rf"[0-9A-Za-z]{{{_ID_CHARS}}}", re.ASCII)
_KEY: Final = re.compile(
    rf"(bkt_({KEY_ID_PATTERN.pattern})_[0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})", re.ASCII
)
_WITHIN_TEXT: Final = re.compile(rf"(bkt_{KEY_ID_PATTERN.pattern}_)[0-9A-Za-z]+", re.ASCII)
# A token (JWT), whole or cut: base64url of JSON, which begins with {" and so with eyJ, and what follows after dots.
_TOKEN_WITHIN_TEXT: Final = re.compile(r"eyJ[\w-]{13,}(?:\.[\w-]+)*", re.ASCII)
SALT_BYTES: Final = 16


def new_key() -> tuple[str, str]:
    """Return a new key, and its id, which is no secret."""
    key_id = "".join(secrets.choice(_DIGITS) for _ in range(_ID_CHARS))
    head = f"bkt_{key_id}_{_base62(int.from_bytes(secrets.token_bytes(32), 'big'), _SECRET_CHARS)}"
    return head + _checksum(head), key_id


def key_id_of(key: str) -> str | None:
    """Return the id in a key; None if the text is no key, or was mistyped."""
    match = _KEY.fullmatch(key)
    return match[2] if match is not None and match[3] == _checksum(match[1]) else None


def without_secrets(text: str) -> str:
    """Return ``text`` with each token in it, and the secret of each key, replaced by ``***``; the id of a key stays."""
    if "bkt_" in text:
        text = _WITHIN_TEXT.sub(r"\1***", text)
    return _TOKEN_WITHIN_TEXT.sub("***", text) if "eyJ" in text else text


def hash_key(key: str, salt: bytes, pepper: bytes) -> bytes:
    """Return the hash under which a key is stored: HMAC-SHA-256, keyed by its ``salt`` and the server's ``pepper``."""
    return hmac.digest(salt + pepper, key.encode(), hashlib.sha256)


def pepper_id_of(pepper: bytes) -> str:
    """Return what tells one pepper from another without disclosing it; empty if there is none."""
    return hashlib.sha256(b"bucket pepper\0" + pepper).hexdigest()[:8] if pepper else ""


def _checksum(head: str) -> str:
    return _base62(zlib.crc32(head.encode()), _CHECKSUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
