"""The class table: each route that is not for everyone has a row and a class."""

from __future__ import annotations

import flask
import pytest

from api.app import create_app
from api.auth.route_permissions import operations_by_rule
from api.limits.route_classes import ROUTE_CLASSES, classes_by_rule
from shared.bootstrap import bootstrap
from shared.settings import Settings


def test_the_table_has_every_route_and_no_other() -> None:
    app, _ = create_app(bootstrap(Settings(), "api"))
    assert set(operations_by_rule(app).values()) == set(ROUTE_CLASSES)


def test_a_route_without_a_row_is_refused_at_start() -> None:
    app = flask.Flask("test", static_folder=None)
    app.add_url_rule("/nowhere", view_func=lambda: "")
    with pytest.raises(LookupError, match="GET /nowhere"):
        classes_by_rule(app)
