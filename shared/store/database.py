"""The connection to MongoDB: one client for each process id, a deadline on every call, errors in Bucket's words."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pymongo
from bson.codec_options import CodecOptions
from bson.errors import BSONError, InvalidDocument
from pymongo import IndexModel, MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database as MongoDatabase
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern

from shared.errors import NotStorable, OutcomeUnknown, Unavailable

TOMBSTONE_TTL_S: Final = 86_400
_DEFAULT_NAME: Final = "bucket"
_WRITE_UNAVAILABLE: Final = "MongoDB does not answer; nothing was stored, send the same request again"
_READ_UNAVAILABLE: Final = "MongoDB does not answer; send the same request again"
# The driver looks for a server in steps of half a second, so that a look takes up to a step more than it is allowed.
_INDEX_TIMEOUT_S: Final = 30.0
_SELECTION_STEP_S: Final = 0.5
_SERVER_KNOWN_FOR_S: Final = 0.1
_PING_TIMEOUT_S: Final = 0.5
_TOO_LARGE_CODES: Final = frozenset({10334, 17280, 17419, 17420})

_Document = dict[str, Any]
_TZ_AWARE: Final[CodecOptions[_Document]] = CodecOptions(tz_aware=True)

_NEWEST_FIRST: Final = (("created_at", -1), ("_id", -1))

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "executions": [
        IndexModel(
            [("integrator", 1), ("idempotency.key", 1)],
            name="idempotency_key",
            unique=True,
            partialFilterExpression={"idempotency.key": {"$exists": True}},
        ),
        IndexModel([("due_by", 1)], name="due_by", partialFilterExpression={"due_by": {"$exists": True}}),
        # Lists, docs/benchmarks.md says what each costs. All are read in the order of a list, but the last.
        IndexModel([("integrator", 1), *_NEWEST_FIRST], name="list"),
        IndexModel([("integrator", 1), ("basket_name", 1), *_NEWEST_FIRST], name="list_by_basket"),
        IndexModel([("integrator", 1), ("status", 1), *_NEWEST_FIRST], name="list_by_status"),
        IndexModel([("integrator", 1), ("request_id", 1), *_NEWEST_FIRST], name="list_by_request"),
        IndexModel(
            [("integrator", 1), ("tags", 1), *_NEWEST_FIRST],
            name="list_by_tag",
            partialFilterExpression={"tags.0": {"$exists": True}},
        ),
        IndexModel([("integrator", 1), ("updated_at", 1), ("_id", 1)], name="list_of_changes"),
        IndexModel(
            [("integrator", 1), ("retry_of", 1)],
            name="retry_of",
            partialFilterExpression={"retry_of": {"$exists": True}},
        ),
        IndexModel(
            [("integrator", 1), ("finished_at", -1), ("_id", -1)],
            name="dead_letter_pages",
            partialFilterExpression={"dead_letter": True},
        ),
        IndexModel([("withdrawn_at", 1)], name="tombstones", expireAfterSeconds=TOMBSTONE_TTL_S, sparse=True),
    ],
    "baskets": [IndexModel([("integrator", 1), ("name", 1)], name="name", unique=True)],
    "outputs": [IndexModel([("execution_id", 1)], name="execution")],
    "dead_letters": [IndexModel([("integrator", 1), ("finished_at", -1), ("_id", -1)], name="pages")],
    "agent_memory": [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)],
    "ledger": [IndexModel([("integrator", 1), ("at", -1)], name="newest")],
}


@dataclass(frozen=True, slots=True)
class _ProcessClient:
    """One process's client; pymongo makes a collection anew each time it is asked, so those once made are kept."""

    pid: int
    database: MongoDatabase[_Document]
    collections: dict[str, Collection[_Document]] = field(default_factory=dict)

    def collection(self, name: str) -> Collection[_Document]:
        known = self.collections.get(name)
        return self.collections.setdefault(name, self.database[name]) if known is None else known


class Database:
    """Where the collections are; every call has ``deadline_s`` seconds in all, retries included.

    Without ``retries`` it never takes longer than that: each retry may look for a server anew.
    """

    def __init__(self, url: str, role: str, deadline_s: float, *, retries: bool = True) -> None:
        self._url = url
        self._role = role
        self.deadline_s = deadline_s
        self._retries = retries
        self._lock = threading.Lock()
        self._opened: _ProcessClient | None = None
        self._answered_at = -math.inf
        self._last_answer_at = -math.inf
        self.is_away = False
        """Set by whoever watches (:meth:`ask_clock`): every other call then fails at once, not after its deadline."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called after each call that was not answered: the primary may be another one from now on."""

    def collection(self, name: str) -> Collection[_Document]:
        """Answer a collection through this process's own client: one must not cross a fork."""
        return self._process_client().collection(name)

    def session(self) -> ClientSession:
        """Answer a session, in which a later read never sees less than an earlier one, whoever is primary by then."""
        return self._process_client().database.client.start_session()

    @contextmanager
    def causal_session(self, name: str, query: _Document) -> Iterator[ClientSession]:
        """Give the block a session that has seen what this primary has: what a majority answers in it has that too."""
        with self.session() as session:
            as_of_now = self.collection(name).with_options(read_concern=ReadConcern("local"))
            as_of_now.find_one(query, {"_id": 1}, session=session)
            yield session

    def check_server(self) -> None:
        """Fail early where no server is known and none is found, and leave time for the call itself."""
        if not self._retries and time.monotonic() - self._answered_at > _SERVER_KNOWN_FOR_S:
            with pymongo.timeout(max(self.deadline_s - _SELECTION_STEP_S, 0.01)):
                _ = self._process_client().database.client.is_primary

    def note_answer(self, *, succeeded: bool) -> None:
        """Note that a call was answered, or was not: for a moment after an answer a server is known to be there."""
        if succeeded:
            self._last_answer_at = time.monotonic()
        self._answered_at = self._last_answer_at if succeeded else -math.inf

    def has_answered_since(self, moment: float) -> bool:
        """True where any call was answered after ``moment`` (monotonic seconds): a store that is busy is not away."""
        return self._last_answer_at > moment

    def read_server_time(self) -> datetime:
        """Answer the primary's own time, within half a second or so; goes through where ``is_away`` is set."""
        try:
            with _translate_errors():
                self.check_server()
            with _translate_errors(), pymongo.timeout(min(self.deadline_s, _PING_TIMEOUT_S)):
                told: datetime = self._process_client().database.client.admin.command("hello", codec_options=_TZ_AWARE)[
                    "localTime"
                ]
        except OutcomeUnknown as lost:
            raise Unavailable(_WRITE_UNAVAILABLE) from lost
        return told.astimezone(UTC)  # whose offset C knows; the driver's zone is asked for it in Python each time

    def is_connected(self) -> bool:
        """True where a primary answers within the deadline."""
        try:
            self.read_server_time()
        except Unavailable:
            return False
        return True

    def ensure_indexes(self) -> None:
        """Make the indexes, each under its name; those that stand already cost a look.

        One that must be built has more time than a call has: a store that is merely busy must not leave it unmade.
        """
        for name, indexes in INDEXES.items():
            with db_call(self, timeout_s=_INDEX_TIMEOUT_S):
                self.collection(name).create_indexes(indexes)

    def close(self) -> None:
        """Close this process's client, where it has one."""
        with self._lock:
            if self._opened is not None and self._opened.pid == os.getpid():
                self._opened.database.client.close()
            self._opened = None

    def _process_client(self) -> _ProcessClient:
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                if self._opened is None or self._opened.pid != os.getpid():
                    self._opened = _ProcessClient(os.getpid(), self._open())
                opened = self._opened
        return opened

    def _open(self) -> MongoDatabase[_Document]:
        client = connect(
            self._url,
            self.deadline_s,
            appname=f"bucket-{self._role}",
            tz_aware=True,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            retryWrites=self._retries,
            retryReads=self._retries,
            connect=False,
            connectTimeoutMS=2_000,
        )
        return client.get_default_database(_DEFAULT_NAME)


def connect(url: str, timeout_s: float, *, bound_calls: bool = False, **options: Any) -> MongoClient[_Document]:
    """Return a client that looks for a server no longer than ``timeout_s``; ``options`` are the driver's own.

    With ``bound_calls`` each connection attempt and each wait for a reply end after it too: for a client whose calls do
    not go through :func:`call`.
    """
    milliseconds = int(timeout_s * 1_000)
    if bound_calls:
        options |= {"connectTimeoutMS": milliseconds, "socketTimeoutMS": milliseconds}
    return MongoClient(url, serverSelectionTimeoutMS=milliseconds, waitQueueTimeoutMS=milliseconds, **options)


@contextmanager
def db_call(database: Database, *, writes: bool = True, timeout_s: float | None = None) -> Iterator[None]:
    """Give the block the deadline of ``database`` (or ``within_s``) and say its errors in Bucket's words.

    Raises Unavailable where nothing can have been written, OutcomeUnknown where nobody can tell, NotStorable for
    content that no repetition will store. DuplicateKeyError passes: it is an answer. A block that ``writes``
    nothing has no unknown outcome.
    """
    if database.is_away:
        raise Unavailable(_WRITE_UNAVAILABLE if writes else _READ_UNAVAILABLE)
    try:
        with _translate_errors():
            database.check_server()
            with pymongo.timeout(timeout_s or database.deadline_s):
                yield
        database.note_answer(succeeded=True)
    except (Unavailable, OutcomeUnknown) as lost:
        database.note_answer(succeeded=False)
        database.on_failure()
        if writes:
            raise
        raise Unavailable(_READ_UNAVAILABLE) from lost


@contextmanager
def db_call_without_deadline() -> Iterator[None]:
    """Say the driver's errors in Bucket's words, without a deadline: for what waits at the store for news.

    The driver would otherwise have the server wait for as long as the deadline is away, whatever it was asked.
    """
    with _translate_errors():
        yield


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Say the driver's errors in Bucket's words."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except (ServerSelectionTimeoutError, WaitQueueTimeoutError, ConfigurationError) as away:
        raise Unavailable(_WRITE_UNAVAILABLE) from away
    except (DocumentTooLarge, InvalidDocument, OverflowError, UnicodeError) as refused:
        raise NotStorable(f"the store refuses this content: {type(refused).__name__}") from refused
    except (ConnectionFailure, NotPrimaryError) as lost:
        raise OutcomeUnknown from lost
    except OperationFailure as failed:
        if failed.code in _TOO_LARGE_CODES:
            raise NotStorable("the store refuses this content: it is too large") from failed
        raise OutcomeUnknown from failed
    except BSONError as refused:
        raise NotStorable(f"the store refuses this content: {type(refused).__name__}") from refused
    except PyMongoError as failed:
        raise OutcomeUnknown from failed


def full_batch_size(ids: Sized) -> int:
    """Answer the batch size that gets all documents of so many names in one reply.

    It is one more than there can be: a batch that is just full leaves the cursor open, for a reply with nothing in it.
    """
    return len(ids) + 1
