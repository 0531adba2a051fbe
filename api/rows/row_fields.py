"""Sparse fields of rows (``?fields=`` of lists and the change feed): the status view, ``result`` and ``metadata``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson
import structlog

from api.hints.poll_hints import ViewHints
from api.http import query_params
from shared.bootstrap import Services
from shared.domain.access.caller import Caller, Scope
from shared.domain.execution import Execution, ExecutionRecord
from shared.errors import Forbidden, SealBroken
from shared.live.render import render_result, render_status, result_steps

ALWAYS_INCLUDED: Final = ("execution_id", "status", "done", "rev")
ROW_FIELDS: Final = (
    *ALWAYS_INCLUDED, "basket_name", "progress", "current_step", "error", "tags", "retry_of", "reference", "created_at",
    "queued_at", "started_at", "finished_at", "waiting_for", "poll_after_ms", "expires_at", "erased_at", "result",
    "metadata",
)  # fmt: skip
HIDDEN_MESSAGE: Final = "not shown: this key does not see payloads"
_PAYLOAD_FIELDS: Final = frozenset({"result", "metadata"})
RESULTS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Limit of the outputs that are read for the results of one page; later results are shown as omitted."""


def parse_row_fields(caller: Caller) -> frozenset[str] | None:
    """Return the fields that this request selects; None for the usual rows, which have no payloads.

    Raises ValidationFailed, and Forbidden for a field that the caller may not see.
    """
    fields = query_params.field_names(ROW_FIELDS, "a row")
    check_sees_payloads(caller, _PAYLOAD_FIELDS & (fields or set()))
    return fields


def check_sees_payloads(caller: Caller, requested: Collection[str]) -> None:
    """Raise Forbidden if the payload fields in ``requested`` are any, and the caller may not see payloads."""
    if requested and not caller.sees_payloads:
        raise Forbidden(
            f"{', '.join(sorted(requested))}: the role {caller.role} does not see payloads; that needs a role that "
            "submits runs, or a key with payloads: true"
        )


def hide_agent_texts(view: dict[str, Any]) -> None:
    """Replace the texts in a parsed view that agents write freely: they quote inputs, as in ``'x' is no date``."""
    if view.get("error") is not None:
        view["error"]["message"] = HIDDEN_MESSAGE
    if view.get("progress") is not None:
        view["progress"]["message"] = None


class RowRenderer:
    """Renders rows with selected fields; results are read from MongoDB, which polls of one run need not."""

    def __init__(self, services: Services, view_hints: ViewHints) -> None:
        self._store = services.store
        self._queries = services.queries
        self._view_hints = view_hints

    def render(
        self, caller: Caller, scope: Scope, runs: Sequence[Execution], fields: Collection[str] | None
    ) -> Sequence[bytes]:
        """Return a row for each run, with the always included and the selected ``fields`` (None: the usual row).

        ``metadata`` is shown as far as the runs have it. A run that was deleted meanwhile, or whose result is asked for
        and cannot be read, is left out.
        """
        if fields is None:
            if caller.sees_payloads:
                return [self._view_hints.add_to(render_status(run)).json for run in runs]
            fields = frozenset(ROW_FIELDS) - _PAYLOAD_FIELDS
        results = self._results(scope, runs) if "result" in fields else {}
        rows = []
        for run in runs:
            if run.id in results and results[run.id] is None:
                continue
            row = orjson.loads(self._view_hints.add_to(render_status(run)).json)
            if not caller.sees_payloads:
                hide_agent_texts(row)
            row["result"] = orjson.Fragment(results.get(run.id) or b"null")
            row["metadata"] = orjson.Fragment(run.metadata)
            always = {name: row[name] for name in ALWAYS_INCLUDED}
            rows.append(orjson.dumps(always | {name: value for name, value in row.items() if name in fields}))
        return rows

    def render_changed(
        self, caller: Caller, scope: Scope, min_revs: Mapping[str, int], fields: Collection[str]
    ) -> Sequence[bytes]:
        """Return the rows of runs by id, in this order, none of an older revision than ``min_revs`` has."""
        runs = self._queries.read_rows(scope, min_revs) if min_revs else {}
        return self.render(caller, scope, [runs[run_id] for run_id in min_revs if run_id in runs], fields)

    def _results(self, scope: Scope, runs: Sequence[Execution]) -> Mapping[str, bytes | None]:
        """Return the results of the completed runs by id: as JSON, None for one that cannot be read or was deleted."""
        results: dict[str, bytes | None] = {}
        bytes_left = RESULTS_BYTES_MAX
        to_read = []
        for run in runs:
            step_ids = result_steps(run)
            if not step_ids:
                continue
            # Outputs of earlier steps are read too, as far as they are stored with the run.
            bytes_left -= sum(step.output_bytes or 0 for step in run.steps.values())
            if bytes_left >= 0:
                to_read.append(run.id)
            else:
                results[run.id] = _omitted(run, step_ids)
        if not to_read:
            return results
        found = self._queries.read_many(scope, to_read, RESULTS_BYTES_MAX + 1)
        records = {record.execution.id: record for record in found.records}
        results |= dict.fromkeys(found.unreadable)
        return results | {
            run_id: self._result(scope, run_id, records.get(run_id))
            for run_id in to_read
            if run_id not in found.unreadable
        }

    def _result(self, scope: Scope, run_id: str, record: ExecutionRecord | None) -> bytes | None:
        result = None if record is None else render_result(record)
        if result is None:  # an output is stored by itself, or a primary that was just elected lacks the run
            steps = () if record is None else result_steps(record.execution)
            try:
                whole = self._store.read(scope, run_id, outputs=steps or None, causal=record is None)
            except SealBroken as broken:
                structlog.get_logger().error("a result cannot be read", execution_id=run_id, reason=str(broken))
                return None
            result = None if whole is None else render_result(whole)
        return result


def _omitted(run: Execution, step_ids: Collection[str]) -> bytes:
    size = sum(run.steps[step_id].output_bytes or 0 for step_id in step_ids)
    omitted: dict[str, Any] = {"omitted": True, "bytes": size, "url": f"/executions/{run.id}?fields=result"}
    return orjson.dumps(omitted)
