"""Fixtures of the tests of operations: one stack a file, repaired after each test; replies are checked by contract."""

from __future__ import annotations

from tests.openapi_conformance import recorded_violations, responses_match_contract
from tests.repaired_stack import runs, stack

__all__ = ["recorded_violations", "responses_match_contract", "runs", "stack"]
