"""Drives a stack through all that has to do with secrets: keys, tokens, marked fields, errors and commands."""

from __future__ import annotations

import base64
import json
import random
from typing import Final

from shared.domain.access.caller import Role
from shared.domain.access.key_format import new_key
from tests.stack import Stack
from tests.token_issuer import TokenIssuer
from tests.trust.header_fuzz import HeaderFuzzer
from tests.trust.party import key_service, make_credential
from tests.trust.recorded_calls import WRONG_PATHS, RecordedCalls
from tests.trust.secret_fields import LIMITS, MarkedFields
from tests.trust.secret_scan import SecretScan
from tests.trust.secret_tokens import use_tokens
from tests.waiting import wait_until

PEPPER: Final = "a-pepper-of-40-characters-for-the-test"
ENCRYPTION_KEY: Final = base64.b64encode(bytes(range(32))).decode()
SETTINGS: Final = {
    "BUCKET_AUTH": "required", "BUCKET_LOG_LEVEL": "DEBUG", "BUCKET_KEY_PEPPER": PEPPER,
    "BUCKET_ENCRYPTION_KEYS": f"first:{ENCRYPTION_KEY}", "BUCKET_LIMITS": LIMITS, "BUCKET_AUDIT_READS": "true",
}  # fmt: skip
FAILED_LOG_INS: Final = 100


class SecretRun:
    """One run on a stack; each reply and each output of a command is searched, but for the one that shows a new key."""

    def __init__(self, stack: Stack, scan: SecretScan, issuer: TokenIssuer, seed: int) -> None:
        self._scan, self._issuer, self._rng = scan, issuer, random.Random(seed)
        with key_service(stack, key_pepper=PEPPER) as keys:
            admin = make_credential(keys, Role.ADMIN, "secrets").key or ""
        scan.add_key("the admin's key", admin)
        scan.add("the pepper", PEPPER)
        scan.add("the encryption key", ENCRYPTION_KEY)
        self.calls = RecordedCalls(stack, scan, admin)
        self._call = self.calls.call

    def play(self) -> None:
        """Do everything once, then search the replies; what was written elsewhere is there for the scan."""
        keys = self._use_routes_of_keys()
        keys += self._use_commands()
        self._fail_to_log_in(keys)
        self._use_runs(keys[0])
        use_tokens(self.calls, self._scan, self._issuer)
        MarkedFields(self.calls, self._scan, self._rng).use()
        self.calls.read_everything()
        self.calls.search()

    def _use_routes_of_keys(self) -> list[str]:
        """Make, rotate and revoke keys over HTTP; return them all, those that have ended too."""
        made = [
            self._call("POST", "/keys", {"role": role, "integrator": "secrets"}, shows=f"a key of {role}")
            for role in Role
        ]
        rotated = self._call("POST", f"/keys/{made[0]['id']}/rotate", {"grace_s": 60}, shows="a rotated key")
        again = self._call("POST", f"/keys/{made[1]['id']}/rotate", shows="another rotated key")
        self._call("DELETE", f"/keys/{made[2]['id']}")
        self._call("POST", f"/keys/{made[2]['id']}/rotate")
        self._call("POST", "/keys", {"role": "king", "integrator": "secrets"})
        for path in WRONG_PATHS:
            self._call("GET", f"{path}/{made[3]['key']}")
        self._call("DELETE", f"/keys/{made[3]['key']}")
        return [made[5]["key"], *(each["key"] for each in (*made[:5], rotated, again))]

    def _use_commands(self) -> list[str]:
        """Make, show, list, rotate and revoke a key with ``bucketd keys``; return the keys."""
        create = ("keys", "create", "--role", "operator", "--integrator", "secrets", "--json")
        made = json.loads(self.calls.command(*create, shows=True))
        self._scan.add_key("a key of bucketd keys create", made["key"])
        rotated = json.loads(self.calls.command("keys", "rotate", made["id"], "--grace-s", "60", "--json", shows=True))
        self._scan.add_key("a key of bucketd keys rotate", rotated["key"])
        for arguments in (("list",), ("show", made["id"]), ("revoke", rotated["id"]), ("show", made["key"])):
            self.calls.command("keys", *arguments)
        return [made["key"], rotated["key"]]

    def _fail_to_log_in(self, keys: list[str]) -> None:
        """Send made-up headers, keys in wrong places, and what looks like a token."""
        fuzzer = HeaderFuzzer(self._rng, keys, keys[1:3])
        for number in range(FAILED_LOG_INS):
            sent = fuzzer.make().environ.get("HTTP_AUTHORIZATION")
            if isinstance(sent, str) and sent.isprintable() and sent.isascii() and len(sent) < 4_000:
                self._call("GET", ("/me", "/executions", "/nowhere")[number % 3], Authorization=sent.strip())
        unknown, token = new_key()[0], ".".join(f"eyJ{self._rng.getrandbits(240):060x}" for _ in range(3))
        self._scan.add_key("an unknown key", unknown)
        self._scan.add("a token", token)
        for secret in (unknown, token, keys[0]):
            self._call("GET", "/me", Authorization=f"Bearer {secret}")
            self._call("GET", f"/me?api_key={secret}", Authorization="")
            self._call("GET", f"/executions?access_token={secret}", Cookie=f"key={secret}")
            self._call("POST", "/run-basket", {"basket_name": "none"}, **{"X-Api-Key": secret})
            self._call("GET", "/executions", **{"Proxy-Authorization": f"Bearer {secret}"})

    def _use_runs(self, key: str) -> None:
        """Run what succeeds, what raises and what is refused, and poll it, all with a key."""
        authorization = f"Bearer {key}"
        bodies = (
            {"agent_name": "teller", "input_data": {"say": ["hello"]}},
            {"agent_name": "teller", "input_data": {"say": ["hello"], "fail": "told to"}},
            {"agent_name": "raiser", "input_data": {"kind": "MemoryError"}},
            {"agent_name": "missing", "input_data": {}},
        )
        runs = []
        for body in bodies:
            made = self._call("POST", "/run-agent", body, Authorization=authorization, **{"Idempotency-Key": str(body)})
            runs += [made["execution_id"]] if "execution_id" in made else []
        for run in runs:
            path = f"/executions/{run}"
            wait_until(lambda path=path: self._call("GET", path, Authorization=authorization)["done"], 20, "it is done")
            self._call("GET", f"{path}/result", Authorization=authorization)
            self._call("POST", f"{path}/retry", {"from": "start"}, Authorization=authorization)
            self._call("POST", f"{path}/cancel", Authorization=authorization)
