"""The reference's Celery task: two agents, one after the other, and one update at the end."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

from celery import Celery

from benchmarks.reference.store import runs
from worker.agents.cashflow_analyzer import agent as cashflow_analyzer
from worker.agents.goal_recommender import agent as goal_recommender

app = Celery("reference", broker=os.environ["REDIS_URL"].replace("unix://", "redis+socket://", 1))
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    broker_pool_limit=int(os.environ["API_THREADS"]),
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
)


class Context:
    """The part of the agent context that the agents use: it takes log lines."""

    def log(self, message: str, **data: Any) -> None:
        """Write a line to Python's logging."""
        logging.getLogger("agents").info("%s %s", message, data)


@app.task(name="run_agents")
def run_agents(run_id: str, given: dict[str, Any]) -> None:
    """Run both agents and write the result."""
    context = Context()
    analysis = cashflow_analyzer.run(given, context)  # type: ignore[arg-type]
    result = goal_recommender.run(analysis, context)  # type: ignore[arg-type]
    outputs = {"cashflow_analyzer": analysis, "goal_recommender": result}
    fields = {"status": "completed", "outputs": outputs, "result": result, "finished_at": datetime.now(UTC)}
    runs().update_one({"_id": run_id}, {"$set": fields})
