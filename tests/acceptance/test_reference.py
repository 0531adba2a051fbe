"""The OpenAPI document as it is served, and the reference page: both need nothing from another origin."""

from __future__ import annotations

import json
import re

import pytest

from tests.acceptance.client import ApiClient
from tests.openapi_conformance import DOCUMENT

ABSOLUTE = re.compile(rb"""(?:https?:)?//[a-z0-9]""", re.IGNORECASE)


def test_the_document_is_served_as_it_is_checked_in(caller: ApiClient) -> None:
    response = caller.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == json.loads(DOCUMENT.read_bytes())


def test_an_unchanged_document_is_304(caller: ApiClient) -> None:
    etag = caller.get("/openapi.json").headers["ETag"]
    for if_none_match in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        assert (caller.get("/openapi.json", headers={"If-None-Match": if_none_match}).status_code) == 304
    for other in ('"x"', "garbage", ""):
        assert (caller.get("/openapi.json", headers={"If-None-Match": other}).status_code) == 200


def test_the_root_is_the_dashboard(caller: ApiClient) -> None:
    response = caller.get("/")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Overview</h1>" in response.text


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/start.js", "/openapi.json"])
def test_the_page_is_only_at_the_root(caller: ApiClient, path: str) -> None:
    assert caller.get(f"/api/v1{path}").status_code == 404


def test_the_page_loads_only_files_of_this_origin(caller: ApiClient) -> None:
    page = caller.get("/docs")
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["connect-src"]) == ("'self'", "'self'")
    assert not ABSOLUTE.search(page.content)
    assert not ABSOLUTE.search(caller.get("/docs/start.js").content.replace(b"// ", b""))
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) > 3
    for file in loaded:
        response = caller.get(f"/{file}")
        assert response.status_code == 200
        assert len(response.content) > 100
        assert response.headers["Content-Type"].split(";")[0] in {
            "text/css", "text/javascript", "image/png", "application/json",
        }  # fmt: skip


def test_the_style_sheet_loads_nothing_from_elsewhere(caller: ApiClient) -> None:
    style = caller.get("/docs/swagger-ui.css").text
    urls = re.findall(r"""(?:@import|url\()\s*["']?([^"')\s]+)""", style)
    assert all(target.startswith(("data:", "#")) for target in urls)


@pytest.mark.parametrize("file", ["x.js", "..%2Fapp.py", "%2e%2e/app.py", "index.html", "swagger-ui.js", "", "a%00b"])
def test_no_other_file_is_served(caller: ApiClient, file: str) -> None:
    assert caller.get(f"/docs/{file}").status_code == 404
