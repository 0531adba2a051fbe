"""GET /executions and POST /executions/poll: a run that cannot be read hides no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared.bootstrap import Services, bootstrap
from shared.settings import Settings

RUN = {"basket_name": "working_test", "input_data": {"transactions": []}}


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    built = bootstrap(replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url), "api")
    with closing(built.redis), closing(built.database):
        built.prepare()
        yield built


@pytest.fixture
def client(services: Services) -> Iterator[FlaskClient]:
    app, start = create_app(services)
    stop = start()
    yield app.test_client()
    stop()


def submitted(client: FlaskClient, count: int) -> list[str]:
    replies = [client.post("/run-basket", json=RUN) for _ in range(count)]
    return [reply.get_json()["execution_id"] for reply in replies]


@pytest.mark.parametrize("fields", ["", "&fields=status", "&fields=result,metadata"])
@pytest.mark.parametrize(
    "changes", [{"$set": {"status": "weird"}}, {"$unset": {"created_at": ""}}, {"$set": {"basket": b"zz"}}]
)
def test_a_list_has_the_others_page_by_page(
    client: FlaskClient, services: Services, changes: dict[str, Any], fields: str
) -> None:
    ids = submitted(client, 7)
    services.database.collection("executions").update_many({"_id": {"$in": ids[1:5]}}, changes)
    pages, cursor = [], ""
    while True:
        reply = client.get(f"/executions?limit=2{fields}{cursor}")
        assert reply.status_code == 200, reply.get_json()
        pages.append([row["execution_id"] for row in reply.get_json()["executions"]])
        if reply.get_json()["next_cursor"] is None:
            break
        cursor = f"&cursor={reply.get_json()['next_cursor']}"
    assert [len(page) for page in pages] == [2, 1]
    assert {each for page in pages for each in page} == {ids[0], *ids[5:]}


@pytest.mark.parametrize("changes", [{"$set": {"basket": b"zz"}}, {"$set": {"events": [{"bad": 1}]}}])
def test_a_poll_of_many_has_the_others(client: FlaskClient, services: Services, changes: dict[str, Any]) -> None:
    ids = submitted(client, 3)
    services.redis.flushdb()
    services.database.collection("executions").update_one({"_id": ids[1]}, changes)
    body = {"items": [{"execution_id": each} for each in ids], "view": "full"}
    reply = client.post("/executions/poll", json=body).get_json()
    assert {view["execution_id"] for view in reply["changed"]} == {ids[0], ids[2]}, reply
    assert (reply["not_found"], reply.get("left_out")) == ([ids[1]], None)
