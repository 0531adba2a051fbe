"""The reference's Flask application: ``POST /run`` stores a run and sends its task, ``GET /run/<id>`` returns it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Flask, jsonify, request

from benchmarks.reference.store import runs
from benchmarks.reference.tasks import run_agents

app = Flask(__name__)


@app.post("/run")
def run() -> Any:
    """Store a run and send it to a worker."""
    input_data = request.get_json()["input_data"]
    run_id = uuid.uuid4().hex
    runs().insert_one({"_id": run_id, "status": "queued", "input": input_data, "created_at": datetime.now(UTC)})
    run_agents.delay(run_id, input_data)
    return jsonify(id=run_id, status="queued"), 202


@app.get("/run/<run_id>")
def show(run_id: str) -> Any:
    """Return the present state of a run."""
    document = runs().find_one({"_id": run_id})
    if document is None:
        return jsonify(error="not found"), 404
    document["id"] = document.pop("_id")
    return jsonify(document)
