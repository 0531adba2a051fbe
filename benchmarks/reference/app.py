"""The reference's Flask application: ``POST /run`` stores a run and hands it out, ``GET /run/<id>`` shows it."""

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
    """Store a run and hand it to a worker."""
    given = request.get_json()["input_data"]
    run_id = uuid.uuid4().hex
    runs().insert_one({"_id": run_id, "status": "queued", "input": given, "created_at": datetime.now(UTC)})
    run_agents.delay(run_id, given)
    return jsonify(id=run_id, status="queued"), 202


@app.get("/run/<run_id>")
def show(run_id: str) -> Any:
    """Show a run as it stands."""
    found = runs().find_one({"_id": run_id})
    if found is None:
        return jsonify(error="not found"), 404
    found["id"] = found.pop("_id")
    return jsonify(found)
