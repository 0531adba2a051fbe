"""The least that a poll from Redis can cost under Flask: one route, one GET, its bytes sent as they are."""

from __future__ import annotations

import os

import flask
import redis

app = flask.Flask(__name__)
client = redis.Redis.from_url(os.environ["REDIS_URL"])
KEY = "constant"


@app.get("/constant")
def constant() -> flask.Response:
    """Answer what lies under the key."""
    return flask.Response(client.get(KEY), mimetype="application/json")
