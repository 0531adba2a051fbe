"""Reads the signing keys of a token issuer, from a file or an address, in the background; requests only use them.

While the issuer is away, the keys that were read last go on. A token whose key is unknown makes it read them again, at
most once in a while, so that a key that the issuer has just made is found and invented ones cause no flood.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import structlog

from api.auth.tokens.signing_keys import KEY_SET_MAX_BYTES, KeySetNotRead, KeySetNotValid, SigningKeys, parse_key_set
from shared.clock import boottime_s

WAIT_MAX_S: Final = 1.5
"""How long a request with an unknown key waits for the keys to be read again."""
WAITING_MAX: Final = 8
"""How many requests wait at once: callers who invent keys must not take all places of a process."""
_ADDRESS_EVERY_S: Final = 300.0
_ADDRESS_AGAIN_AFTER_S: Final = 10.0
_FILE_EVERY_S: Final = 2.0
_FILE_AGAIN_AFTER_S: Final = 1.0


class SigningKeySource:
    """The keys that were read last; ``keys`` is None until they were read once.

    A background thread calls ``refresh`` and ``pause`` in turn.
    """

    def __init__(
        self, read: Callable[[], bytes], algorithms: Collection[str], *, every_s: float, again_after_s: float
    ) -> None:
        """``read`` returns the key set or raises KeySetNotRead; it is read each ``every_s`` seconds.

        After a failure, and for tokens of unknown keys, it is read again ``again_after_s`` later at the earliest.
        """
        self._read = read
        self._algorithms = algorithms
        self._every_s = every_s
        self._again_after_s = again_after_s
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._read_ended = threading.Event()
        self._is_reading = False
        self._began_at_s = float("-inf")
        self.waiting = 0
        self._raw = b""
        self.fault = ""
        self.keys: SigningKeys | None = None

    def read_again(self, seen: SigningKeys | None) -> SigningKeys | None:
        """Return the keys after they were read again, if that is due; at once if not, or if they are not ``seen``."""
        with self._lock:
            is_early = boottime_s() - self._began_at_s < self._again_after_s
            if self.keys is not seen or self.waiting >= WAITING_MAX or (is_early and not self._is_reading):
                return self.keys
            if not self._is_reading:
                self._wanted.set()
            self.waiting += 1
            read_ended = self._read_ended
        try:
            read_ended.wait(WAIT_MAX_S)
        finally:
            with self._lock:
                self.waiting -= 1
        return self.keys

    def refresh(self) -> None:
        """Read the keys; a failure is logged, once for each cause, and the keys of before go on."""
        with self._lock:
            self._wanted.clear()
            self._is_reading, self._began_at_s = True, boottime_s()
        try:
            self._take_over(self._read())
        except (KeySetNotRead, KeySetNotValid) as error:
            self._log_fault(str(error))
        finally:
            with self._lock:
                self._is_reading = False
                read_ended, self._read_ended = self._read_ended, threading.Event()
            read_ended.set()

    def pause(self) -> None:
        """Wait until the keys should be read again."""
        self._wanted.wait(min(self._every_s, self._again_after_s) if self.fault else self._every_s)

    def _take_over(self, raw: bytes) -> None:
        if raw != self._raw or self.keys is None:
            keys = parse_key_set(raw, self._algorithms)
            self._raw, self.keys = raw, keys
            structlog.get_logger().info(
                "the signing keys of the token issuer were read", keys=len(keys.by_id), unusable=list(keys.unusable)
            )
        elif self.fault:
            structlog.get_logger().info("the signing keys of the token issuer can be read again")
        self.fault = ""

    def _log_fault(self, fault: str) -> None:
        if fault != self.fault:
            message = "the signing keys of the token issuer (BUCKET_JWT_JWKS) could not be read"
            consequence = "no token can be checked" if self.keys is None else "the keys that were read before go on"
            structlog.get_logger().warning(message, reason=fault, consequence=consequence)
        self.fault = fault


def open_source(location: str, algorithms: Collection[str]) -> SigningKeySource:
    """Return the source of the key set at ``location``, an address or the path of a file; nothing is read yet."""
    if "://" in location:
        # It loads the HTTP client, which takes 20 MB; before the fork, so that the processes share them.
        from api.auth.tokens.key_set_client import KeySetClient

        return SigningKeySource(
            KeySetClient(location).fetch, algorithms, every_s=_ADDRESS_EVERY_S, again_after_s=_ADDRESS_AGAIN_AFTER_S
        )
    path = Path(location)
    return SigningKeySource(
        lambda: read_key_set(path), algorithms, every_s=_FILE_EVERY_S, again_after_s=_FILE_AGAIN_AFTER_S
    )


def read_key_set(path: Path) -> bytes:
    """Return the content of a file; raises KeySetNotRead."""
    try:
        with path.open("rb") as file:
            raw = file.read(KEY_SET_MAX_BYTES + 1)
    except OSError as error:
        raise KeySetNotRead(f"{path}: {error.strerror}") from None
    if len(raw) > KEY_SET_MAX_BYTES:
        raise KeySetNotRead(f"{path} has more than {KEY_SET_MAX_BYTES} bytes")
    return raw
