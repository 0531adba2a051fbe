"""Policy of request bodies: refuses callback URLs, credentials and misspelt keys, and warns of other unknown keys.

Pure functions on parsed JSON. No message contains a value, because the value may be the secret.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from api.http.strict_json import FAULTS_MAX, json_pointer, to_printable
from shared.errors import BucketError, CallbacksNotSupported, CredentialsNotAccepted, RequestError
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
KEY_ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys(("input", "inputs", "data", "payload"), ("input_data", "input")),
        "input_data": ("input",),
        "basket": ("basket_name",),
        "name": ("basket_name", "id"),
        "agent": ("agent_name",),
        "agent_name": ("agent",),
        **dict.fromkeys(("ids", "executions"), ("items",)),
        "delay": ("run_after_s",),
        **dict.fromkeys(("depends_on", "dependencies", "requires", "after"), ("needs",)),
        "strategy": ("execution_strategy",),
        "retries": ("retry",),
    }
)
"""Keys that are taken for others, each with the known keys that it may mean; the first that the object has counts."""
NEAR_MISS_SIMILARITY_MIN: Final = 0.8
# One comparison costs some microseconds, and a body may have 100,000 keys.
_COMPARED_KEYS_MAX: Final = 200
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


@dataclass(frozen=True, slots=True)
class UnknownKeys:
    """The unknown keys of an object: near misses of known keys are refused, the others ignored with a warning."""

    near_misses: Mapping[str, str] = field(default_factory=dict)
    """By key, the known key that it probably means."""
    warnings: Sequence[str] = ()

    @property
    def faults(self) -> dict[str, list[str]]:
        """The near misses as marshmallow's messages; each name is cut to 64 characters."""
        first = islice(self.near_misses.items(), FAULTS_MAX)
        return {to_printable(key): [f"is not a known key; did you mean {meant}?"] for key, meant in first}


_ALL_KEYS_KNOWN: Final = UnknownKeys()


def find_unknown_keys(
    body: Mapping[str, Any],
    known_keys: Collection[str],
    *,
    within: str = "",
    key_hints: Mapping[str, str] = NO_KEY_HINTS,
) -> UnknownKeys:
    """Return the keys of ``body`` that are not in ``known_keys``: near misses, and warnings of the first 20 others.

    ``within`` names the object that ``body`` is, if it is not the whole request body. ``key_hints`` gives, for keys
    that belong somewhere else, the text that says where.
    """
    unknown = [key for key in body if key not in known_keys]
    if not unknown:
        return _ALL_KEYS_KNOWN
    near_misses, others = {}, []
    for index, key in enumerate(unknown):
        meant = None if key in key_hints else _meant_key(key, known_keys, compares=index < _COMPARED_KEYS_MAX)
        if meant is None:
            others.append(key)
        else:
            near_misses[key] = meant
    suffix = f" of {within}" if within else ""
    warnings = [_unknown_key_warning(to_printable(key), known_keys, suffix, key_hints) for key in others[:FAULTS_MAX]]
    return UnknownKeys(near_misses, warnings)


def unknown_key_faults(body: Mapping[str, Any], known_keys: Collection[str]) -> dict[str, list[str]]:
    """Return marshmallow's message for each key of ``body`` that is not in ``known_keys``; the first 20."""
    unknown = [key for key in body if key not in known_keys][:FAULTS_MAX]
    return {to_printable(key): [_unknown_key_fault(key, known_keys)] for key in unknown}


def _unknown_key_fault(key: str, known_keys: Collection[str]) -> str:
    """Return what is wrong with an unknown key, with the known key that it probably means."""
    name = to_printable(key)
    meant = _meant_key(name, known_keys) or next(iter(closest_matches(name.lower(), known_keys)), None)
    return f"is not a known key; {f'did you mean {meant}?' if meant else 'the keys are ' + ', '.join(known_keys)}"


def with_warnings(error: BucketError, warnings: Sequence[str]) -> BucketError:
    """Return ``error``; if it is a 400, with the ``warnings`` of the body: an ignored key may be its reason."""
    if warnings and error.http_status == HTTPStatus.BAD_REQUEST:
        error.message = "; ".join((error.message, *warnings[:3]))
        error.extension_members = {**error.extension_members, "warnings": list(warnings)}
    return error


def _meant_key(key: str, known_keys: Collection[str], *, compares: bool = True) -> str | None:
    """Return the known key that ``key`` is a near miss of; None if it is none, or if nothing is to be compared."""
    folded = _fold(key)
    by_folded = {_fold(known): known for known in known_keys}
    if folded in by_folded:
        return by_folded[folded]
    meant = next((target for target in _TARGETS_BY_FOLDED_ALIAS.get(folded, ()) if target in known_keys), None)
    if meant is not None or not compares:
        return meant
    name = to_printable(key).lower()
    similar = closest_matches(name, known_keys, similarity_min=NEAR_MISS_SIMILARITY_MIN)
    similar += map(
        by_folded.__getitem__, closest_matches(_fold(name), by_folded, similarity_min=NEAR_MISS_SIMILARITY_MIN)
    )
    return next(iter(similar), None)


def _fold(key: str) -> str:
    """Return ``key`` in lower case, without ``-`` and ``_``."""
    return key.lower().replace("_", "").replace("-", "")


_TARGETS_BY_FOLDED_ALIAS: Final = {_fold(alias): targets for alias, targets in KEY_ALIASES.items()}


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
                if _fold(key) in CREDENTIAL_KEYS:
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
