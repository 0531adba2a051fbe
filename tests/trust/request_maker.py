"""Makes random requests from the operations of the OpenAPI document, with names and ids of both integrators.

Each value comes from the schema of its parameter or key. Values that name something are the caller's own, the other
integrator's, or made up. Everything that is written carries the caller's marker.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from tests.trust.contract import Operation
from tests.trust.party import SHARED_BASKET, Credential, Party, Writer

COMMON_NAMES: Final = tuple(f"common-{number}" for number in range(6))
"""Names that both integrators give to things of their own."""
_NOBODY: Final = "z" + "0" * 18
_EXECUTION_ID: Final = re.compile(r"[0-9]{10}_[0-9a-f]{16}")
_WRITTEN_BY_ONE_THREAD: Final = {"consumers", "baskets"}
_WORDS: Final = re.compile(r"[a-z][a-z_]+")
_WORDS_OF: Final = {
    "agents": ("teller", "teller", "echo", "missing"),
    "steps": ("teller", "teller", "echo", "cashflow_analyzer", "missing"),
    "codes": ("not_found", "forbidden", "missing"),
}
_FIXED: Final[Mapping[str, Any]] = {
    "agent_name": "teller", "agent": "teller", "start_deadline_s": 900, "deadline_s": 900,
    "expires_in_s": 900, "grace_s": 60, "timeout_s": 60, "retry": "none",
    "wait": 0.02,
}  # fmt: skip
_LEFT_OUT: Final = {
    "run_after", "execution_strategy", "needs", "id", "networks", "integration", "expires_in_days",
}  # fmt: skip
"""Keys that do not go with others, or that would make most requests invalid."""
_KINDS: Final[Mapping[str, str]] = {
    "execution_id": "executions", "retry_of": "executions", "tag": "tags", "reference": "references",
    "request_id": "requests", "basket": "baskets", "basket_name": "baskets", "idempotency_key": "idempotency_keys",
    "letter_id": "letters",
}  # fmt: skip
"""Which kind of thing a parameter or a key names, wherever it stands."""


@dataclass(slots=True)
class MadeRequest:
    """A request, who sends it, and which values in it name things of the other integrator."""

    operation: Operation
    party: Party
    writer: Writer
    credential: Credential
    path: str = ""
    path_values: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    foreign_path: str | None = None
    """The foreign value in the path, if there is one: the reply must be that for one that does not exist."""
    foreign_basket: str | None = None

    @property
    def is_foreign(self) -> bool:
        """Return whether it names a thing of the other integrator that must not be found."""
        return self.foreign_path is not None or self.foreign_basket is not None

    @property
    def target(self) -> str:
        """Return the path with its query, as it is sent."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    def sent_body(self) -> bytes | None:
        """Return the body as it is sent."""
        return None if self.body is None else json.dumps(self.body).encode()

    def sent_bytes(self) -> bytes:
        """Return all that the request says, unquoted: a reply may repeat that."""
        values = [*self.path_values.values(), *self.query.values(), *self.headers.values()]
        return b"\0".join([*(value.encode() for value in values), self.sent_body() or b""])


class RequestMaker:
    """Makes the requests of one thread of a party; ``other`` is the party whose things it tries to reach."""

    def __init__(self, party: Party, writer: Writer, other: Party, rng: random.Random) -> None:
        self._party, self._writer, self._other, self._rng = party, writer, other, rng

    def make(self, operation: Operation, credential: Credential) -> MadeRequest:
        """Return a random request of ``operation``."""
        request = MadeRequest(operation, self._party, self._writer, credential)
        request.headers["X-Request-ID"] = request_id = self._party.text("request")
        self._party.pool.add("requests", request_id, self._rng)
        if credential.key is not None:
            request.headers["Authorization"] = f"Bearer {credential.key}"
        for parameter in operation.parameters:
            self._add_parameter(request, parameter)
        path = operation.path
        for name, value in request.path_values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        # A few by the versioned path, which is another route of the application.
        request.path = f"/api/v1{path}" if self._rng.random() < 0.1 and operation.collection in _VERSIONED else path
        if operation.body is not None and (operation.is_body_required or self._rng.random() < 0.5):
            request.headers["Content-Type"] = "application/json"
            request.body = self._object(request, operation.body)
        if request.headers.get("Idempotency-Key") in COMMON_NAMES:
            request.headers["Content-Type"] = "application/json"
            request.body, request.foreign_basket = self._neutral_body(operation), None
        return request

    def _add_parameter(self, request: MadeRequest, parameter: Mapping[str, Any]) -> None:
        name, place, schema = parameter["name"], parameter["in"], parameter["schema"]
        if place == "path":
            kind = f"{name}s" if name in {"step", "code"} else _KINDS.get(name, request.operation.collection)
            if request.operation.path.endswith("/retry") and self._rng.random() < 0.7:
                kind = "letters"  # runs that have failed, and can be retried
            value, is_foreign = self._named(request, kind, schema, must_be_own=request.operation.method == "PUT")
            request.path_values[name] = value
            request.foreign_path = value if is_foreign else request.foreign_path
        elif place == "header":
            self._add_header(request, name)
        elif self._rng.random() < 0.25:
            value = self._value(request, name, schema)
            if value is not None:
                request.query[name] = str(value)

    def _add_header(self, request: MadeRequest, name: str) -> None:
        if self._rng.random() > 0.3:
            return
        if name == "Idempotency-Key":
            value = self._idempotency_key()
        elif name == "If-None-Match":
            source = self._other if self._rng.random() < 0.5 else self._party
            value = source.pool.pick("etags", self._rng) or '"0"'
        elif name == "Prefer":
            value = "wait=0"
        else:
            return
        request.headers[name] = value

    def _idempotency_key(self) -> str:
        chance = self._rng.random()
        if chance < 0.2:
            return self._rng.choice(COMMON_NAMES)
        source = self._party if chance < 0.4 else self._other if chance < 0.65 else None
        value = None if source is None else source.pool.pick("idempotency_keys", self._rng)
        if value is None:
            value = self._party.text("key")
            self._party.pool.add("idempotency_keys", value, self._rng)
        self._party.key_uses[value] += 1
        return value

    def _named(
        self, request: MadeRequest, kind: str, schema: Mapping[str, Any], *, must_be_own: bool = False
    ) -> tuple[str, bool]:
        """Return a value that names a thing of ``kind``, and whether that is the other integrator's."""
        if kind in _WORDS_OF:
            return self._rng.choice(_WORDS_OF[kind]), False
        if "enum" in schema:
            return str(self._rng.choice(schema["enum"])), False
        chance = self._rng.random()
        if must_be_own:
            chance = 0.3 * chance if self._rng.random() < 0.4 else 0.99
        if 0.5 < chance < 0.85:
            value = self._foreign(kind)
            if value is not None:
                return value, True
        if chance < 0.5 and (value := self._own(request, kind)) is not None:
            return value, False
        if must_be_own:
            can_be_common = self._writer.number == 0 and self._rng.random() < 0.2
            return (self._rng.choice(COMMON_NAMES) if can_be_common else self._new_name(kind)), False
        return self.made_up(self._foreign(kind) or self._party.text("none")), False

    def _own(self, request: MadeRequest, kind: str) -> str | None:
        if kind not in _WRITTEN_BY_ONE_THREAD:
            return self._party.pool.pick(kind, self._rng)
        reads = request.operation.method == "GET" or (kind == "baskets" and request.operation.method == "POST")
        writer = self._rng.choice(self._party.writers) if reads else self._writer
        return writer.pool.pick(kind, self._rng)

    def _foreign(self, kind: str) -> str | None:
        source = self._rng.choice(self._other.writers).pool if kind in _WRITTEN_BY_ONE_THREAD else self._other.pool
        value = source.pick(kind, self._rng)
        return None if value in COMMON_NAMES else value

    def _new_name(self, kind: str) -> str:
        return self._party.text(f"{kind.rstrip('s')}-t{self._writer.number}")

    def made_up(self, like: str) -> str:
        """Return what looks like ``like``, has its length, and names nothing."""
        if _EXECUTION_ID.fullmatch(like):
            return f"{like[:11]}{self._rng.getrandbits(64):016x}"
        if "-" in like:
            return _NOBODY + like[len(_NOBODY) :]
        return "".join(self._rng.choice("0123456789abcdefABCDEF") for _ in like)

    def _value(self, request: MadeRequest, name: str, schema: Mapping[str, Any]) -> Any:
        """Return a value for a parameter or a key of the body."""
        if name in _FIXED:
            value = _FIXED[name]
        elif name in {"cursor", "since"}:
            value = self._cursor(request, name)
        elif name in _KINDS:
            value = self._name_of(request, name, schema)
        elif name == "name" and request.operation.collection in {"create-basket", "baskets"}:
            value = self._named(request, "baskets", {}, must_be_own=True)[0]
        elif name == "fields":
            value = ",".join(self._rng.sample(sorted(set(_WORDS.findall(schema["pattern"]))), 4))
        elif name == "integrator":
            value = self._party.integrator
        else:
            value = self._by_schema(request, name, schema)
        return value

    def _name_of(self, request: MadeRequest, name: str, schema: Mapping[str, Any]) -> str:
        kind = _KINDS[name]
        is_submit = request.operation.body is not None and request.operation.method == "POST"
        if is_submit and kind == "baskets":
            if self._rng.random() < 0.5:
                return SHARED_BASKET
            value, is_foreign = self._named(request, kind, {})
            is_filter = request.operation.path == "/executions/actions"  # which then matches nothing
            request.foreign_basket = value if is_foreign and not is_filter else request.foreign_basket
            return value
        if kind == "idempotency_keys":
            return self._idempotency_key()
        if is_submit and kind == "references":
            value = self._rng.choice(COMMON_NAMES) if self._rng.random() < 0.2 else self._party.text("reference")
            self._party.pool.add(kind, value, self._rng)
            return value
        return self._named(request, kind, schema)[0]

    def _cursor(self, request: MadeRequest, name: str) -> str | None:
        source = self._party if self._rng.random() < 0.6 else self._other
        own_page = f"{name} {request.operation.collection}"
        feed = "since executions"  # what consumers take too
        kind = feed if request.operation.collection == "consumers" else own_page
        return source.pool.pick(kind, self._rng) or ("now" if kind == feed and name == "since" else None)

    def _object(self, request: MadeRequest, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        body = {}
        for name, each in properties.items():
            if name in required or (name not in _LEFT_OUT and self._rng.random() < 0.4):
                value = self._value(request, name, each)
                if value is not None:
                    body[name] = value
        return self._consistent(body, properties)

    def _consistent(self, body: dict[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``body`` as the rules between its keys want it, which the schemas do not say."""
        if "steps" in properties and ("steps" in body) == ("agents" in body):
            body.pop("steps", None)
            body["agents"] = ["teller", "echo"][: self._rng.randint(1, 2)]
        if "config" in properties:
            body.pop("config" if "basket_name" in body else "basket_name", None)
            body.setdefault("basket_name", SHARED_BASKET) if "config" not in body else None
        if "dry_run" in properties:  # what it does to which runs is not known here: that has tests of its own
            body["dry_run"] = True
        return body

    def _by_schema(self, request: MadeRequest, name: str, schema: Mapping[str, Any]) -> Any:
        if "anyOf" in schema:
            schema = schema["anyOf"][0]
        kinds = schema.get("type", "string")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if "enum" in schema:
            return self._rng.choice([value for value in schema["enum"] if value is not None])
        if kind == "object":
            return self._object(request, schema) if "properties" in schema else self._free_object(name)
        if kind == "array":
            return self._array(request, name, schema)
        if kind == "boolean":
            return self._rng.random() < 0.5
        if kind in {"integer", "number"}:
            return self._number(name, schema)
        return self._string(name, schema)

    def _array(self, request: MadeRequest, name: str, schema: Mapping[str, Any]) -> list[Any]:
        if name == "agents":
            return ["teller"]
        if name == "tags":
            return [self._tag() for _ in range(self._rng.randint(1, 2))]
        if name == "baskets":
            return [SHARED_BASKET]
        count = self._rng.randint(max(1, schema.get("minItems", 0)), 3)
        return [self._value(request, name.rstrip("s"), schema["items"]) for _ in range(count)]

    def _tag(self) -> str:
        chance = self._rng.random()
        value = self._rng.choice(COMMON_NAMES) if chance < 0.2 else None
        if value is None and chance < 0.6:
            value = self._party.pool.pick("tags", self._rng)
        if value is None:
            value = self._party.text("tag")
        self._party.pool.add("tags", value, self._rng)
        return value

    def _free_object(self, name: str) -> dict[str, Any]:
        text = self._party.text("payload" if name == "input_data" else name)
        if name in {"input_data", "input"}:
            failing = {"fail": self._party.text("failure")} if self._rng.random() < 0.2 else {}
            return {
                "say": [text],
                "note": text,
                "transactions": [{"id": 1, "amount": 5, "description": text}],
            } | failing
        return {"note": text}

    def _number(self, name: str, schema: Mapping[str, Any]) -> float:
        if name == "run_after_s":
            return self._rng.choice((0, 0, 3_600))
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return self._rng.randint(int(least) + (name not in {"after", "rev"}), int(least) + 20)

    def _string(self, name: str, schema: Mapping[str, Any]) -> str:
        if schema.get("format") == "date-time":
            return f"2026-12-0{self._rng.randint(1, 9)}T10:00:00Z"
        if schema.get("format") == "uri" or name.endswith("url"):
            return f"https://integrator.example/{self._party.text('document')}"
        if "pattern" in schema and (words := _WORDS.findall(schema["pattern"])):
            return self._rng.choice(words)
        return self._party.text(name.replace("_", "-").lower())[: schema.get("maxLength", 200)]

    def _neutral_body(self, operation: Operation) -> Any:
        """Return the one body of all submits with a common idempotency key: a repeat is no conflict of keys."""
        properties = (operation.body or {}).get("properties", {})
        if "items" in properties and operation.collection == "run-basket":
            return {"items": [{"basket_name": SHARED_BASKET}]}
        if "basket_name" in properties:
            return {"basket_name": SHARED_BASKET}
        if "agent_name" in properties:
            return {"agent_name": "teller", "input_data": {}}
        return {}


_VERSIONED: Final = {
    "executions",
    "consumers",
    "baskets",
    "run-basket",
    "run-agent",
    "logs",
    "dead-letters",
    "keys",
    "me",
}
