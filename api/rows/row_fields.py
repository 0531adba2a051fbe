"""Sparse fields of rows (``?fields=`` of lists and the change feed): the status view, ``result`` and ``metadata``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from api.hints.poll_hints import ViewHints
from api.http import query_params
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, ExecutionRecord
from shared.live.render import render_result, render_status, result_steps

ALWAYS_INCLUDED: Final = ("execution_id", "status", "done", "rev")
ROW_FIELDS: Final = (
    *ALWAYS_INCLUDED, "basket_name", "progress", "current_step", "error", "tags", "retry_of", "reference", "created_at",
    "queued_at", "started_at", "finished_at", "waiting_for", "poll_after_ms", "expires_at", "erased_at", "result",
    "metadata",
)  # fmt: skip
RESULTS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Limit of the outputs that are read for the results of one page; later results are shown as omitted."""


def parse_row_fields() -> frozenset[str] | None:
    """Return the fields that this request selects; None for the usual rows. Raises ValidationFailed."""
    return query_params.field_names(ROW_FIELDS, "a row")


class RowRenderer:
    """Renders rows with selected fields; results are read from MongoDB, which polls of one run need not."""

    def __init__(self, services: Services, view_hints: ViewHints) -> None:
        self._store = services.store
        self._queries = services.queries
        self._view_hints = view_hints

    def render(self, runs: Sequence[Execution], fields: Collection[str]) -> Sequence[bytes]:
        """Return a row for each run, with the always included and the selected ``fields``.

        ``metadata`` is shown as far as the runs have it. A run that was deleted meanwhile is left out.
        """
        results = self._results(runs) if "result" in fields else {}
        rows = []
        for run in runs:
            if run.id in results and results[run.id] is None:
                continue
            row = orjson.loads(self._view_hints.add_to(render_status(run)).json)
            row["result"] = orjson.Fragment(results.get(run.id) or b"null")
            row["metadata"] = orjson.Fragment(run.metadata)
            always = {name: row[name] for name in ALWAYS_INCLUDED}
            rows.append(orjson.dumps(always | {name: value for name, value in row.items() if name in fields}))
        return rows

    def render_changed(self, min_revs: Mapping[str, int], fields: Collection[str]) -> Sequence[bytes]:
        """Return the rows of runs by id, in this order, none of an older revision than ``min_revs`` has."""
        runs = self._queries.read_rows(PUBLIC_INTEGRATOR, min_revs) if min_revs else {}
        return self.render([runs[run_id] for run_id in min_revs if run_id in runs], fields)

    def _results(self, runs: Sequence[Execution]) -> Mapping[str, bytes | None]:
        """Return the results of the completed runs by id: as JSON, None for a run that was deleted meanwhile."""
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
        found = self._queries.read_many(PUBLIC_INTEGRATOR, to_read, RESULTS_BYTES_MAX + 1) if to_read else ()
        records = {record.execution.id: record for record in found}
        return results | {run_id: self._result(run_id, records.get(run_id)) for run_id in to_read}

    def _result(self, run_id: str, record: ExecutionRecord | None) -> bytes | None:
        result = None if record is None else render_result(record)
        if result is None:  # an output is stored by itself, or a primary that was just elected lacks the run
            steps = () if record is None else result_steps(record.execution)
            whole = self._store.read(PUBLIC_INTEGRATOR, run_id, outputs=steps or None, causal=record is None)
            result = None if whole is None else render_result(whole)
        return result


def _omitted(run: Execution, step_ids: Collection[str]) -> bytes:
    size = sum(run.steps[step_id].output_bytes or 0 for step_id in step_ids)
    omitted: dict[str, Any] = {"omitted": True, "bytes": size, "url": f"/executions/{run.id}?fields=result"}
    return orjson.dumps(omitted)
