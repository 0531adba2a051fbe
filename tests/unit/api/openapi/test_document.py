"""docs/openapi.json has every route and no other, with valid schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import jsonschema_rs
import pytest

from api.app import create_app
from api.auth.route_permissions import ROUTE_PERMISSIONS
from api.dashboard.route_names import DASHBOARD_ROUTES
from api.http import version_prefix
from api.openapi import operation_table
from api.openapi.operation_descriptions import DESCRIPTIONS
from api.openapi.response_schemas import RESPONSE_SCHEMAS
from shared import errors
from shared.bootstrap import bootstrap
from shared.domain.access.caller import Permission
from shared.settings import Settings
from tests.openapi_conformance import DOCUMENT

CHECKED_IN: dict[str, Any] = json.loads(DOCUMENT.read_bytes())
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.fixture(scope="module")
def app() -> flask.Flask:
    """Return the application; it has connected to no server."""
    app, _ = create_app(bootstrap(Settings(), "api"))
    return app


def documented_operations() -> set[tuple[str, str]]:
    """Return each method and path of the document, under each of its servers."""
    operations = set()
    for path, item in CHECKED_IN["paths"].items():
        for server in item.get("servers", CHECKED_IN["servers"]):
            base = server["url"].rstrip("/")
            operations |= {(method.upper(), base + path) for method in item if method not in {"servers", "parameters"}}
    return operations


def test_the_document_has_each_route_of_the_application_and_no_other(app: flask.Flask) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    pages = {tuple(name.split(" ", 1)) for name in DASHBOARD_ROUTES}  # the dashboard's, which are for people
    assert documented_operations() == routes - pages


def test_each_row_of_the_table_is_a_route_and_each_route_has_a_row() -> None:
    assert set(operation_table.OPERATIONS) == {
        f"{method} {path}"
        for method, path in documented_operations()
        if not path.startswith(version_prefix.VERSION_PREFIX)
    }


def test_the_application_serves_the_checked_in_document(app: flask.Flask) -> None:
    assert app.test_client().get("/openapi.json").json == CHECKED_IN, "run `make openapi` and commit docs/openapi.json"


def test_each_code_of_the_error_tree_is_listed_by_some_operation() -> None:
    def leaves(kind: type[errors.BucketError]) -> Iterator[str]:
        yield kind.error_code
        for child in kind.__subclasses__():
            yield from leaves(child)

    listed = {code for node in nodes(CHECKED_IN["paths"]) for code in node.get("x-error-codes", ())}
    before_any_route = {"uri_too_long", "headers_too_large", "not_implemented", "method_not_allowed"}
    assert listed | before_any_route == set(leaves(errors.RequestError)) | set(leaves(errors.ServiceError))


def nodes(item: Any) -> Iterator[dict[str, Any]]:
    if isinstance(item, dict):
        yield item
    for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from nodes(inner)


def test_each_reference_leads_somewhere_and_each_component_is_referred_to() -> None:
    components_by_reference = {
        f"#/components/{kind}/{name}"
        for kind, components in CHECKED_IN["components"].items()
        for name in components
        if kind != "securitySchemes"  # a requirement names it
    }
    assert {node["$ref"] for node in nodes(CHECKED_IN) if "$ref" in node} == components_by_reference


@pytest.mark.parametrize("name", CHECKED_IN["components"]["schemas"])
def test_each_schema_is_valid_json_schema(name: str) -> None:
    schema = CHECKED_IN["components"]["schemas"][name]
    jsonschema_rs.meta.validate({"$schema": DIALECT, **schema})
    for node in nodes(schema):
        if "properties" in node and "required" in node and node.get("additionalProperties") is False:
            assert set(node["required"]) <= set(node["properties"])


def test_each_parameter_of_a_path_is_documented() -> None:
    parameters = CHECKED_IN["components"]["parameters"]
    for path, item in CHECKED_IN["paths"].items():
        for method in set(item) - {"servers", "parameters"}:
            named = [
                parameters[reference["$ref"].rpartition("/")[2]] for reference in item[method].get("parameters", ())
            ]
            in_path = {parameter["name"] for parameter in named if parameter["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), (method, path)


def test_each_operation_has_an_id_a_sentence_of_its_own_and_a_description() -> None:
    ids = [operation["operationId"] for operation in each_operation()]
    assert len(set(ids)) == len(ids)
    assert all(operation[name].endswith(".") for operation in each_operation() for name in ("summary", "description"))
    assert set(DESCRIPTIONS) == set(operation_table.OPERATIONS)


def test_no_schema_has_what_generators_of_clients_fail_on() -> None:
    for schema in nodes([CHECKED_IN["components"], list(each_schema())]):
        # With these beside properties they drop the properties; const is no type for them.
        conditions = {"anyOf", "oneOf", "not", "if", "then", "else", "const", "dependentRequired"}
        assert not ("properties" in schema and conditions & set(schema)), schema
        assert "const" not in schema, schema
        assert "enum" not in schema or "type" in schema, schema
        assert all(isinstance(item, dict) for item in (schema.get("properties") or {}).values()), schema
        # Go's generator makes pointers of {}.
        assert schema.get("additionalProperties") != {}, schema
        # openapi-typescript makes a property with a default required.
        assert not any("default" in item for item in (schema.get("properties") or {}).values()), schema


def each_schema() -> Iterator[dict[str, Any]]:
    yield from (node["schema"] for node in nodes(CHECKED_IN["paths"]) if "schema" in node)


def test_a_key_is_sent_wherever_the_permission_table_needs_one() -> None:
    assert CHECKED_IN["security"] == [{"key": []}, {}]
    needs_nothing = {name for name, permission in ROUTE_PERMISSIONS.items() if permission is Permission.PUBLIC}
    public = {
        f"{verb.upper()} {path}"
        for path, item in CHECKED_IN["paths"].items()
        for verb, operation in item.items()
        if verb != "servers" and operation.get("security") == []
    }
    assert public == needs_nothing
    operations = each_operation()
    assert all(operation["x-permission"] for operation in operations)


def test_each_link_leads_to_an_operation_and_fills_its_path() -> None:
    parameters = CHECKED_IN["components"]["parameters"]
    operations_by_id = {operation["operationId"]: operation for operation in each_operation()}
    for link in CHECKED_IN["components"]["links"].values():
        named = [
            parameters[reference["$ref"].rpartition("/")[2]]
            for reference in operations_by_id[link["operationId"]]["parameters"]
        ]
        assert set(link["parameters"]) == {parameter["name"] for parameter in named if parameter["in"] == "path"}


def each_operation() -> Iterator[dict[str, Any]]:
    for item in CHECKED_IN["paths"].values():
        yield from (item[method] for method in set(item) - {"servers", "parameters"})


def test_each_example_matches_its_schema() -> None:
    shown = 0
    for media in nodes(CHECKED_IN["paths"]):
        for example in media.get("examples", {}).values() if "schema" in media else ():
            schema = {"$schema": DIALECT, "components": CHECKED_IN["components"], **media["schema"]}
            jsonschema_rs.validator_for(schema, validate_formats=True).validate(example["value"])
            shown += 1
    assert shown > 30


def test_no_schema_allows_more_than_the_code_sends() -> None:
    execution = RESPONSE_SCHEMAS["Execution"]
    assert set(execution["properties"]) - set(execution["required"]) == {
        "gap", "poll_after_ms", "reference", "expires_at", "erased_at", "traceparent",
    }  # fmt: skip
    assert execution["additionalProperties"] is False


def test_an_outdated_document_is_reported_with_the_command_that_mends_it(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from api.write_openapi import main

    old = tmp_path / "openapi.json"
    old.write_text("{}\n")
    result = CliRunner().invoke(main, [str(old), "--check"])
    assert result.exit_code == 1
    assert "make openapi" in result.output
    assert old.read_text() == "{}\n"
    assert CliRunner().invoke(main, [str(old)]).exit_code == 0
    assert CliRunner().invoke(main, [str(old), "--check"]).exit_code == 0
