"""An integrator of the test: its keys of every role, its marker, and what it owns and has done."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from api.auth.key_service import KeyService
from shared.bootstrap import bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Permission, Role
from shared.settings import Settings
from tests.stack import Stack

POOL_MAX: Final = 300
SHARED_BASKET: Final = "working_test"


@dataclass(frozen=True, slots=True)
class Credential:
    """A key, or the want of one; ``permits`` is what the role table says of it."""

    label: str
    key: str | None
    key_id: str = ""
    role: Role | None = None
    payloads: bool = False

    def may(self, permissions: Mapping[Role, frozenset[Permission]], permission: Permission) -> bool:
        """Return whether the table permits it, or the key's own ``payloads``."""
        if self.role is None:
            return False
        by_switch = self.payloads and permission is Permission.READ_PAYLOADS
        return by_switch or permission in permissions[self.role]


class Pool:
    """Values by kind, such as the ids of executions; of each kind a random few hundred are kept."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        self._known: dict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def add(self, kind: str, value: str, rng: random.Random) -> None:
        """Add a value; beyond the limit it takes the place of another."""
        with self._lock:
            values, known = self._values[kind], self._known[kind]
            if value in known:
                return
            if len(values) < POOL_MAX:
                values.append(value)
            else:
                place = rng.randrange(POOL_MAX)
                known.discard(values[place])
                values[place] = value
            known.add(value)

    def remove(self, kind: str, value: str) -> None:
        """Remove a value that is no more."""
        with self._lock:
            if value in self._known[kind]:
                self._known[kind].discard(value)
                self._values[kind].remove(value)

    def pick(self, kind: str, rng: random.Random) -> str | None:
        """Return a random value; None if there is none."""
        with self._lock:
            values = self._values.get(kind)
            return rng.choice(values) if values else None


@dataclass(slots=True)
class Writer:
    """One thread of a party, which alone writes the consumers and baskets it has made: so their end is known."""

    number: int
    pool: Pool = field(default_factory=Pool)
    consumers: dict[str, str] = field(default_factory=dict)
    """Each consumer's cursor, as the last reply to a write said."""
    baskets: dict[str, str] = field(default_factory=dict)
    """Each basket's description."""


@dataclass(slots=True)
class Party:
    """One integrator; ``marker`` stands in everything that it writes, its name too, and nobody can guess it."""

    marker: str
    credentials: Sequence[Credential]
    writers: Sequence[Writer]
    pool: Pool = field(default_factory=Pool)
    created: set[str] = field(default_factory=set)
    """The ids of the runs that it was told it has created."""
    cancelled: set[str] = field(default_factory=set)
    retried: set[str] = field(default_factory=set)
    key_uses: Counter[str] = field(default_factory=Counter)
    """How often it has sent each idempotency key."""
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def integrator(self) -> str:
        """Return the name of the integrator."""
        return f"{self.marker}-integrator"

    def text(self, kind: str) -> str:
        """Return a new text with the marker, fit for a name."""
        with self._lock:
            self._count += 1
            return f"{self.marker}-{kind}-{self._count:06}"

    def unguessable(self) -> re.Pattern[bytes]:
        """Return the pattern of what nobody else may see: texts with the marker, and the ids of the keys."""
        ids = "|".join(credential.key_id for credential in self.credentials if credential.key_id)
        return re.compile(rf"{self.marker}(?:-[a-z0-9]+)*|{ids}".encode())


def new_marker(rng: random.Random) -> str:
    """Return a marker of 72 random bits that is a valid beginning of every name."""
    return f"z{rng.getrandbits(72):018x}"


def make_party(keys: KeyService, rng: random.Random, writers: int) -> Party:
    """Return a party with keys of each role but admin: the reader's and the auditor's without payloads and with."""
    party = Party(new_marker(rng), [], [Writer(number) for number in range(writers)])
    party.credentials = [
        make_credential(keys, role, party.integrator, payloads=payloads)
        for role in Role
        if role is not Role.ADMIN
        for payloads in ((False, True) if role in {Role.READER, Role.AUDITOR} else (False,))
    ]
    return party


def make_credential(keys: KeyService, role: Role, integrator: str, *, payloads: bool = False) -> Credential:
    """Make a key and return it."""
    view = keys.create(KeyRequest(role=role, integrator=integrator, payloads=payloads), "test")
    label = f"{role}{' with payloads' if payloads else ''}"
    return Credential(label, view["key"], view["id"], role, payloads)


@contextmanager
def key_service(stack: Stack, **settings: str) -> Iterator[KeyService]:
    """Yield the service that makes keys, as ``bucketd keys`` has it, on the stores of ``stack``."""
    services = bootstrap(
        replace(Settings(), redis_url=stack.redis_url, mongodb_url=stack.mongodb_url, **settings), "operator"
    )
    with closing(services.redis), closing(services.database):
        yield KeyService(services)
