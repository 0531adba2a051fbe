"""The baseline of a poll: the least it can cost under Flask with Redis; one route sends the bytes of one GET."""

from __future__ import annotations

import os

import flask
import redis

app = flask.Flask(__name__)
client = redis.Redis.from_url(os.environ["REDIS_URL"])
KEY = "constant"


@app.get("/constant")
def constant() -> flask.Response:
    """Return the value of the key."""
    return flask.Response(client.get(KEY), mimetype="application/json")
