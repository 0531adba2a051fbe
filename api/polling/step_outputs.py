"""GET /executions/{id}/outputs/{step}: the full output of one step, as its agent returned it."""

from __future__ import annotations

import flask

from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.polling.execution_reader import ExecutionReader, check_execution_id
from shared.domain.execution import ExecutionRecord
from shared.domain.status import StepStatus
from shared.errors import NotFound
from shared.ids import AGENT_NAME_PATTERN
from shared.live.views import ViewCache


class StepOutputHandler:
    """Replies with the outputs of steps, from Redis first, then from MongoDB."""

    def __init__(self, views: ViewCache, reader: ExecutionReader) -> None:
        self._views = views
        self._reader = reader

    def respond(self, execution_id: str, step: str) -> flask.Response:
        """Return the output of a completed step; raises NotFound if the step has none, and ExecutionNotFound."""
        check_execution_id(execution_id)
        if not AGENT_NAME_PATTERN.fullmatch(step):
            raise NotFound(f"execution {execution_id} has no step {step[:64]!r}: no step can have this id")
        output = self._reader.try_redis(lambda: self._views.get_output(execution_id, step))
        if output is None:
            try:
                output = _output_in(self._reader.read(execution_id, outputs=(step,)), step)
            except NotFound:  # the caller may have seen it before a failover
                output = _output_in(self._reader.read(execution_id, outputs=(step,), causal=True), step)
        return flask.Response(output, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")


def _output_in(record: ExecutionRecord, step_id: str) -> bytes:
    step = record.execution.steps.get(step_id)
    if step is None:
        raise NotFound(f"execution {record.execution.id} has no step {step_id[:64]!r}")
    if step.status is not StepStatus.COMPLETED or step_id not in record.outputs:
        if step.status.is_final:
            raise NotFound(f"step {step_id} has no output and will have none: it is {step.status}")
        raise NotFound(f"step {step_id} has no output yet: it is {step.status}; poll the run until it is completed")
    return record.outputs[step_id]
