"""docs/openapi.json tells of every route and of no other, in forms that are sound."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import jsonschema_rs
import pytest

from api.app import build_components, create_app
from api.http import version_prefix
from api.openapi import operation_table
from api.openapi.document import error_codes
from api.openapi.response_schemas import RESPONSE_SCHEMAS
from shared import errors
from shared.bootstrap import bootstrap
from shared.settings import Settings
from tests.openapi_conformance import DOCUMENT

CHECKED_IN: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.fixture(scope="module")
def app() -> flask.Flask:
    """The application, of which nothing has connected to anything."""
    return create_app(build_components(bootstrap(Settings(), "api")))


def told() -> set[tuple[str, str]]:
    """Each method and address that the document tells of, under each of its servers."""
    found = set()
    for path, item in CHECKED_IN["paths"].items():
        for server in item.get("servers", CHECKED_IN["servers"]):
            base = server["url"].rstrip("/")
            found |= {(method.upper(), base + path) for method in item if method not in {"servers", "parameters"}}
    return found


def test_each_route_of_the_application_is_told_and_no_other(app: flask.Flask) -> None:
    there = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    assert told() == there


def test_each_row_of_the_table_is_a_route_and_each_route_has_a_row() -> None:
    assert set(operation_table.OPERATIONS) == {
        f"{method} {path}" for method, path in told() if not path.startswith(version_prefix.VERSION_PREFIX)
    }


def test_what_is_checked_in_is_what_the_application_serves(app: flask.Flask) -> None:
    assert app.test_client().get("/openapi.json").json == CHECKED_IN, "run `make openapi` and commit docs/openapi.json"


def test_each_code_of_the_error_tree_is_told_by_some_operation() -> None:
    def leaves(kind: type[errors.BucketError]) -> Iterator[str]:
        yield kind.error_code
        for child in kind.__subclasses__():
            yield from leaves(child)

    assert error_codes() == set(leaves(errors.RequestError)) | set(leaves(errors.ServiceError))


def nodes(item: Any) -> Iterator[dict[str, Any]]:
    if isinstance(item, dict):
        yield item
    for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from nodes(inner)


def test_each_reference_leads_somewhere_and_each_component_is_referred_to() -> None:
    there = {
        f"#/components/{kind}/{name}" for kind, components in CHECKED_IN["components"].items() for name in components
    }
    assert {node["$ref"] for node in nodes(CHECKED_IN) if "$ref" in node} == there


@pytest.mark.parametrize("name", CHECKED_IN["components"]["schemas"])
def test_each_form_is_json_schema(name: str) -> None:
    form = CHECKED_IN["components"]["schemas"][name]
    jsonschema_rs.meta.validate({"$schema": DIALECT, **form})
    for node in nodes(form):
        if "properties" in node and "required" in node and node.get("additionalProperties") is False:
            assert set(node["required"]) <= set(node["properties"])


def test_each_parameter_of_a_path_is_told() -> None:
    parameters = CHECKED_IN["components"]["parameters"]
    for path, item in CHECKED_IN["paths"].items():
        for method in set(item) - {"servers", "parameters"}:
            named = [parameters[told["$ref"].rpartition("/")[2]] for told in item[method].get("parameters", ())]
            in_path = {parameter["name"] for parameter in named if parameter["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), (method, path)


def test_each_operation_has_an_id_and_a_sentence_of_its_own() -> None:
    ids = [operation["operationId"] for operation in each_operation()]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"].endswith(".") for operation in each_operation())


def test_each_link_leads_to_an_operation_and_fills_its_path() -> None:
    parameters = CHECKED_IN["components"]["parameters"]
    operations_by_id = {operation["operationId"]: operation for operation in each_operation()}
    for link in CHECKED_IN["components"]["links"].values():
        named = [
            parameters[told["$ref"].rpartition("/")[2]] for told in operations_by_id[link["operationId"]]["parameters"]
        ]
        assert set(link["parameters"]) == {parameter["name"] for parameter in named if parameter["in"] == "path"}


def each_operation() -> Iterator[dict[str, Any]]:
    for item in CHECKED_IN["paths"].values():
        yield from (item[method] for method in set(item) - {"servers", "parameters"})


def test_each_example_has_the_form_that_it_is_an_example_of() -> None:
    shown = 0
    for media in nodes(CHECKED_IN["paths"]):
        for example in media.get("examples", {}).values() if "schema" in media else ():
            form = {"$schema": DIALECT, "components": CHECKED_IN["components"], **media["schema"]}
            jsonschema_rs.validator_for(form, validate_formats=True).validate(example["value"])
            shown += 1
    assert shown > 30


def test_no_form_takes_more_than_the_truth() -> None:
    execution = RESPONSE_SCHEMAS["Execution"]
    assert set(execution["properties"]) - set(execution["required"]) == {"gap", "poll_after_ms"}
    assert execution["additionalProperties"] is False


def test_a_document_that_is_not_what_the_code_says_is_told_with_what_to_do(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from api.write_openapi import main

    old = tmp_path / "openapi.json"
    old.write_text("{}\n")
    answer = CliRunner().invoke(main, [str(old), "--check"])
    assert answer.exit_code == 1
    assert "make openapi" in answer.output
    assert old.read_text() == "{}\n"
    assert CliRunner().invoke(main, [str(old)]).exit_code == 0
    assert CliRunner().invoke(main, [str(old), "--check"]).exit_code == 0
