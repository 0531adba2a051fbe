"""POST /run-basket/batch: up to 500 submits in one request, each accepted or refused by itself and in order.

An item is what the body of POST /run-basket is, and is answered what that call would have answered; only what no item
can be read without (JSON that is none, a body too large) refuses the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import flask
from flask import request
from marshmallow import Schema, fields

from api.background import Keeper
from api.catalogue.basket_cache import KnownBaskets
from api.http.body_policy import check_policy, unknown_keys
from api.http.request_body import Blueprint, StrictParser, read_body
from api.schemas import Items, RunBasket
from api.submission.batch_acceptor import BatchAcceptor
from api.submission.run_builder import key_of
from shared.bootstrap import Services

_KEYS: Final = ("items",)


class BatchItem(RunBasket):
    """One submit of a batch."""

    idempotency_key = fields.Str(metadata={"description": "as the header Idempotency-Key of a single submit"})


class RunBatch(Schema):
    """The body of POST /run-basket/batch."""

    items = Items(BatchItem, told="bodies of /run-basket")


def blueprint(services: Services, keeper: Keeper, known: KnownBaskets) -> Blueprint:
    """Answer the route that makes many executions."""
    blp = Blueprint("batch", __name__, description="Run many baskets in one request")
    blp.ARGUMENTS_PARSER = _BatchParser()
    acceptor = BatchAcceptor(services, keeper, known)

    @blp.route("/run-basket/batch", methods=["POST"])
    @blp.arguments(RunBatch())
    def run_batch(_: Mapping[str, Any]) -> flask.Response:
        """Run up to 500 baskets; a bad item fails alone."""
        key = key_of(request.headers.get("Idempotency-Key"))
        raw = read_body(request)
        return acceptor.accept(raw, key, unknown_keys(raw, _KEYS))

    return blp


def _check_beside_items(body: Mapping[str, Any], raw: bytes) -> None:
    """Hold all of a body but its items to the policy; each item is held to it by itself."""
    check_policy({key: value for key, value in body.items() if key != "items"}, raw)


class _BatchParser(StrictParser):
    POLICY = staticmethod(_check_beside_items)
