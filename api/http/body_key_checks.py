"""Policy of request bodies: refuses callback URLs and credentials, and warns of unknown keys.

Pure functions on parsed JSON. No message contains a value, because the value may be the secret.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from api.http.strict_json import FAULTS_MAX, json_pointer, to_printable
from shared.errors import CallbacksNotSupported, CredentialsNotAccepted, RequestError
from shared.suggestions import closest_matches

CALLBACK_KEYS: Final = frozenset({"callback", "callback_url", "webhook", "webhook_url", "notify_url"})
# Lower case, without "-" and "_".
CREDENTIAL_KEYS: Final = frozenset(
    {
        "password",
        "passwd",
        "secret",
        "apikey",
        "accesstoken",
        "refreshtoken",
        "privatekey",
        "clientsecret",
        "authorization",
    }
)
NO_KEY_HINTS: Final[Mapping[str, str]] = MappingProxyType({})
_CREDENTIAL_WORDS: Final = tuple(key.encode() for key in sorted(CREDENTIAL_KEYS))


def check_policy(body: Mapping[str, Any], raw: bytes | None = None) -> None:
    """Refuse a body that asks for a callback or contains credentials.

    ``raw`` is the text that the body was parsed from; with it most bodies need no search of all their keys. Raises
    CallbacksNotSupported or CredentialsNotAccepted; their details have the JSON pointer of each key.
    """
    callbacks: list[tuple[str | int, ...]] = [(key,) for key in body if key in CALLBACK_KEYS]
    config = body.get("config")
    if isinstance(config, dict):
        callbacks += [("config", key) for key in config if key in CALLBACK_KEYS]
    if callbacks:
        advice = "Bucket never calls back; leave this out and poll status_url until done is true"
        raise _refusal(CallbacksNotSupported, callbacks, "Bucket never calls back", advice)
    credentials = _find_credentials(body) if raw is None or _may_name_credentials(raw) else []
    if credentials:
        advice = "credentials must not be sent in a body; configure them where the agent runs"
        raise _refusal(CredentialsNotAccepted, credentials, "credentials are not accepted in a body", advice)


def unknown_key_warnings(
    body: Mapping[str, Any],
    known_keys: Collection[str],
    *,
    within: str = "",
    key_hints: Mapping[str, str] = NO_KEY_HINTS,
) -> list[str]:
    """Return a warning for each key of ``body`` that is not in ``known_keys``: the first 20, each cut to 64 characters.

    ``within`` names the object that ``body`` is, if it is not the whole request body. ``key_hints`` gives, for keys
    that belong somewhere else, the text that says where.
    """
    unknown_keys = [key for key in body if key not in known_keys][:FAULTS_MAX]
    return [
        _unknown_key_warning(to_printable(key), known_keys, f" of {within}" if within else "", key_hints)
        for key in unknown_keys
    ]


def _unknown_key_warning(name: str, known_keys: Collection[str], suffix: str, key_hints: Mapping[str, str]) -> str:
    closest = next(iter(closest_matches(name.lower(), [*known_keys, *key_hints])), None)
    hint = "" if closest is None else f"; {key_hints.get(closest) or f'did you mean {closest}?'}"
    return f"unknown field '{name}'{suffix} was ignored{hint}"


def _may_name_credentials(raw: bytes) -> bool:
    """Return False only if no key of ``raw`` can be a credential; with escapes or non-ASCII letters this is unknown."""
    if b"\\" in raw or not raw.isascii():
        return True
    normalized = raw.translate(None, b"_-").lower()
    return any(word in normalized for word in _CREDENTIAL_WORDS)


def _find_credentials(body: Mapping[str, Any]) -> list[tuple[str | int, ...]]:
    found: list[tuple[str | int, ...]] = []
    queue: deque[tuple[tuple[str | int, ...], Any]] = deque([((), body)])
    while queue and len(found) < FAULTS_MAX:
        path, item = queue.popleft()
        if isinstance(item, dict):
            for key, inner in item.items():
                if key.lower().replace("_", "").replace("-", "") in CREDENTIAL_KEYS:
                    found.append((*path, key))
                elif isinstance(inner, (dict, list)):
                    queue.append(((*path, key), inner))
        else:
            queue.extend(((*path, at), inner) for at, inner in enumerate(item) if isinstance(inner, (dict, list)))
    return found[:FAULTS_MAX]


def _refusal(kind: type[RequestError], paths: Sequence[tuple[str | int, ...]], fault: str, advice: str) -> RequestError:
    details = [{"pointer": json_pointer(path), "message": fault} for path in paths]
    pointers = [detail["pointer"] for detail in details[:3]]
    more = f" and {len(details) - len(pointers)} more" if len(details) > len(pointers) else ""
    return kind(f"{', '.join(pointers)}{more}: {advice}", details=details)
