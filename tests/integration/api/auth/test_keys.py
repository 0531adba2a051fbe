"""Keys over HTTP: who gets in, what each refusal says, and the routes that make, rotate and revoke keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth import route_permissions
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Permission, Role
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.settings import Settings
from tests.waiting import wait_until

PEPPER = "a pepper of more than thirty-two characters"


class Api:
    """The API in this process, with a key of each role for the integrator acme."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.app, start = create_app(services)
        self.end = start()
        self.client: FlaskClient = self.app.test_client()
        self.service = KeyService(services)
        self.keys = {role: self.new(role) for role in Role}

    def new(self, role: Role, **more: Any) -> dict[str, Any]:
        return self.service.create(KeyRequest(role, "acme", **more), "test")

    def call(self, method: str, path: str, key: str | None = None, **more: Any) -> TestResponse:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.open(path, method=method, headers=headers, **more)

    def as_admin(self, method: str, path: str, **more: Any) -> TestResponse:
        return self.call(method, path, self.keys[Role.ADMIN]["key"], **more)


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    settings = Settings(
        redis_url=redis_url, mongodb_url=mongodb_url, auth="required", key_pepper=PEPPER, environment="test"
    )
    built = bootstrap(settings, "api")
    built.clock.sync()
    built.prepare()
    with closing(built.redis), closing(built.database):
        yield built


@pytest.fixture
def api(services: Services) -> Iterator[Api]:
    made = Api(services)
    try:
        yield made
    finally:
        made.end()


def test_without_a_key_a_route_says_what_to_send(api: Api) -> None:
    reply = api.call("GET", "/executions")
    assert (reply.status_code, reply.json["error_code"]) == (401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="bucket"'
    assert "Authorization: Bearer <key>" in reply.json["detail"]
    assert reply.headers["X-Request-ID"] == reply.json["request_id"]


def test_a_refused_key_is_named_in_no_reply(api: Api) -> None:
    good = api.keys[Role.READER]["key"]
    wrong_secret = KeyService(api.services).create(KeyRequest(Role.READER, "acme"), "test")["key"]
    api.services.database.collection("keys").update_one({"_id": wrong_secret[4:16]}, {"$set": {"key_hash": b"0" * 32}})
    for text in (good[:-1], good + "x", good.lower(), wrong_secret, "bkt_x", "a.b.c", "x" * 5_000):
        reply = api.call("GET", "/me", text)
        assert reply.status_code == 401, text
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="bucket", error="invalid_token"'
        assert text not in reply.get_data(as_text=True)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic {key}", "{key}", "bearer\t{key}", "Bearer {key},x"])
def test_only_a_bearer_header_counts(api: Api, header: str) -> None:
    key = api.keys[Role.READER]["key"]
    assert api.client.get("/me", headers={"Authorization": header.format(key=key)}).status_code == 401
    assert api.client.get(f"/me?key={key}&api_key={key}&access_token={key}").status_code == 401
    assert api.client.get("/me", headers={"X-API-Key": key, "Cookie": f"key={key}"}).status_code == 401
    assert api.client.get("/me", headers={"Authorization": f"bEARER  {key}"}).status_code == 200


def test_me_says_who_calls(api: Api) -> None:
    view = api.call("GET", "/me", api.new(Role.INTEGRATOR, baskets=("b", "a"))["key"]).json
    assert view["subject"] == f"key:{view['key_id']}"
    assert (view["role"], view["integrator"], view["baskets"]) == ("integrator", "acme", ["a", "b"])
    assert view["expires_at"].endswith("Z")


def test_each_route_is_closed_without_a_key_and_to_the_roles_that_the_guide_does_not_name(api: Api) -> None:
    """That it is open to the others is seen where each route is tested."""
    refused = 0
    for (rule, method), permission in route_permissions.permissions_by_rule(api.app).items():
        path = re.sub("<[^>]+>", "abcdefghijkl", rule)
        if permission in {Permission.PUBLIC, Permission.OPTIONAL}:
            continue
        if permission is Permission.SESSION:  # pages: to the log-in, or refused
            reply = api.call(method, path, api.keys[Role.ADMIN]["key"])
            assert reply.status_code in {200, 303, 403, 404}, (method, path)
            assert reply.status_code != 200 or path == "/ui/login", "no key opens a page without a session"
            continue
        assert api.call(method, path).status_code == 401, (method, path)
        for role, key in api.keys.items():
            assert api.keys[role]["role"] == role
            if role is Role.ADMIN or _permits(role, permission):
                continue
            reply = api.call(method, path, key["key"], json={} if method in {"POST", "PUT"} else None)
            assert reply.status_code == 403, (method, path, role)
            assert method == "HEAD" or str(role) in reply.json["detail"]
            refused += 1
    assert refused > 100


def _permits(role: Role, permission: Permission) -> bool:
    """Return what the guide's table says, written here once more."""
    integrators = {Role.INTEGRATOR, Role.OPERATOR, Role.AUTHOR}
    return {
        Permission.METRICS: True,
        Permission.IDENTIFY: True,
        Permission.READ: True,
        Permission.READ_PAYLOADS: role in integrators,
        Permission.SUBMIT: role in integrators,
        Permission.CONSUME: role in integrators,
        Permission.OPERATE: role is Role.OPERATOR,
        Permission.WRITE_BASKETS: role is Role.AUTHOR,
        Permission.READ_AUDIT: role is Role.AUDITOR,
        Permission.ADMINISTER: False,
    }[permission]


def test_a_route_without_a_row_stops_the_start(services: Services) -> None:
    app, _ = create_app(services)
    app.add_url_rule("/new", view_func=lambda: "", endpoint="new")
    with pytest.raises(LookupError, match="GET /new has no row"):
        route_permissions.permissions_by_rule(app)


def test_health_without_a_key_says_only_the_status(api: Api) -> None:
    assert set(api.call("GET", "/health").json) == {"status"}
    assert "services" in api.call("GET", "/health", api.keys[Role.READER]["key"]).json
    assert api.call("GET", "/health", "bkt_x").status_code == 401


def test_metrics_need_a_key_or_a_network(redis_url: str, mongodb_url: str, api: Api) -> None:
    assert api.call("GET", "/metrics").status_code == 401
    assert api.call("GET", "/metrics", api.keys[Role.READER]["key"]).status_code == 200


def test_a_key_is_made_by_an_admin_and_shown_once(api: Api) -> None:
    body = {
        "role": "integrator",
        "integrator": "globex",
        "name": "nightly",
        "owner": "the data team",
        "expires_in_s": 60,
        "baskets": ["working_test"],
    }
    made = api.as_admin("POST", "/keys", json=body)
    assert made.status_code == 201, made.json
    view, text = made.json, made.json["key"]
    assert (view["role"], view["integrator"], view["name"], view["status"]) == (
        "integrator", "globex", "nightly", "active",
    )  # fmt: skip
    assert api.call("GET", "/me", text).json["integrator"] == "globex"
    successor = api.as_admin("POST", f"/keys/{view['id']}/rotate", json={}).json
    assert view["owner"] == successor["owner"] == "the data team"
    listing = api.as_admin("GET", "/keys")
    assert view["id"] in {each["id"] for each in listing.json["keys"]}
    shown = listing.get_data(as_text=True) + api.as_admin("GET", f"/keys/{view['id']}").get_data(as_text=True)
    assert text not in shown
    assert text.rpartition("_")[2] not in shown


def test_a_basket_of_a_key_that_does_not_exist_is_named(api: Api) -> None:
    api.services.baskets.seed(PUBLIC_INTEGRATOR, {"name": "nightly_report", "agents": ["working_test"]})
    body = {"role": "integrator", "integrator": "globex", "baskets": ["nightly_report", "nightly_reprot"]}
    made = api.as_admin("POST", "/keys", json=body)
    assert made.status_code == 201
    [warning] = made.json["warnings"]
    assert "'nightly_reprot' was not found; did you mean 'nightly_report'?" in warning
    view = api.as_admin("GET", f"/keys/{made.json['id']}").json
    assert (view["baskets"], "warnings" in view) == (body["baskets"], False)
    body["baskets"].remove("nightly_reprot")
    assert "warnings" not in api.as_admin("POST", "/keys", json=body).json


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"integrator": "acme"}, "/role"),
        ({"role": "boss", "integrator": "acme"}, "/role"),
        ({"role": "reader"}, "/integrator"),
        ({"role": "reader", "integrator": "a:b"}, "/integrator"),
        ({"role": "reader", "integrator": "acme", "expires_in_s": 0}, "/expires_in_s"),
        ({"role": "reader", "integrator": "acme", "expires_in_s": 5, "expires_in_days": 5}, "/expires_in_s"),
        ({"role": "reader", "integrator": "acme", "networks": ["10.0.0.1/8"]}, "/networks/0"),
        ({"role": "reader", "integrator": "acme", "networks": ["::1", "fe80::1%eth0"]}, "/networks/1"),
        ({"role": "reader", "integrator": "acme", "payload": True}, "/payload"),
        ({"role": "reader", "integrator": "acme", "payloads": 1}, "/payloads"),
        ({"role": "reader", "integrator": "acme", "payloads": 0.0}, "/payloads"),
        ({"role": "reader", "integrator": "acme", "payloads": "true"}, "/payloads"),
    ],
)
def test_a_faulty_request_for_a_key_is_refused_with_its_place(api: Api, body: dict[str, Any], pointer: str) -> None:
    reply = api.as_admin("POST", "/keys", json=body)
    assert reply.status_code == 400
    assert pointer in {detail["pointer"] for detail in reply.json["details"]}


def test_keys_come_page_by_page(api: Api) -> None:
    ids, path = [], "/keys?limit=2"
    while path:
        page = api.as_admin("GET", path).json
        ids += [key["id"] for key in page["keys"]]
        path = f"/keys?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert sorted(ids) == ids
    assert {key["id"] for key in api.keys.values()} == set(ids)
    assert api.as_admin("GET", "/keys?cursor=abc").json["error_code"] == "cursor_invalid"


@pytest.mark.parametrize(
    "damage",
    [
        {"integrator": None},
        {"payloads": "false"},
        {"baskets": "abc"},
        {"expires_at": "never"},
        {"revoked_at": "yes"},
        {"created_at": "once"},
        {"last_used_at": "often"},
        {"integration": ["itg"]},
    ],
)
def test_a_damaged_record_permits_no_more_than_a_whole_one(api: Api, damage: dict[str, Any]) -> None:
    made = api.new(Role.READER)
    api.services.database.collection("keys").update_one({"_id": made["id"]}, {"$set": damage})
    reply = api.call("GET", "/executions", made["key"])
    assert (reply.status_code, reply.json["error_code"]) == (401, "unauthenticated")
    assert api.as_admin("GET", "/keys").status_code == 200


def test_a_record_that_cannot_be_read_permits_nothing_and_hides_no_other(api: Api) -> None:
    broken, *others = sorted(api.keys.values(), key=lambda key: str(key["id"]))
    keys = api.services.database.collection("keys")
    if broken is api.keys[Role.ADMIN]:
        broken, others = others[0], [broken, *others[1:]]
    keys.update_one({"_id": broken["id"]}, {"$set": {"role": "of a later release"}})
    assert api.call("GET", "/me", broken["key"]).json["error_code"] == "unauthenticated"
    assert api.as_admin("GET", f"/keys/{broken['id']}").json["error_code"] == "key_not_found"
    first = api.as_admin("GET", f"/keys?limit={len(others) - 1}").json
    second = api.as_admin("GET", f"/keys?cursor={first['next_cursor']}").json
    assert [key["id"] for key in first["keys"] + second["keys"]] == [key["id"] for key in others]
    assert second["next_cursor"] is None


def test_a_rotated_key_lives_for_its_grace_and_is_replaced_once(api: Api) -> None:
    old = api.new(Role.OPERATOR)
    new = api.as_admin("POST", f"/keys/{old['id']}/rotate", json={"grace_s": 3_600}).json
    assert new["replaces"]["id"] == old["id"]
    for key in (old, new):
        assert api.call("GET", "/me", key["key"]).json["role"] == "operator"
    assert api.as_admin("GET", f"/keys/{old['id']}").json["replaced_by"] == new["id"]
    again = api.as_admin("POST", f"/keys/{old['id']}/rotate")
    assert (again.status_code, again.json["error_code"]) == (409, "key_not_valid")
    assert len([key for key in api.as_admin("GET", "/keys").json["keys"] if key["role"] == "operator"]) == 3


def test_without_a_grace_the_old_key_ends_at_once(api: Api) -> None:
    old = api.new(Role.READER)
    assert api.call("GET", "/me", old["key"]).status_code == 200
    assert api.as_admin("POST", f"/keys/{old['id']}/rotate").status_code == 201
    refused = api.call("GET", "/me", old["key"])
    assert refused.status_code == 401
    assert "expired" in refused.json["detail"]


def test_a_revoked_key_is_refused_at_once_by_the_process_that_was_told(api: Api) -> None:
    key = api.new(Role.READER)
    assert api.call("GET", "/me", key["key"]).status_code == 200
    assert api.as_admin("DELETE", f"/keys/{key['id']}").json["key"]["status"] == "revoked"
    refused = api.call("GET", "/me", key["key"])
    assert refused.status_code == 401
    assert "revoked" in refused.json["detail"]
    assert api.as_admin("DELETE", f"/keys/{key['id']}").status_code == 200
    assert api.as_admin("DELETE", "/keys/abcdefghijkl").json["error_code"] == "key_not_found"


def test_an_expired_key_is_refused(api: Api) -> None:
    key = api.new(Role.READER, expires_in=timedelta(milliseconds=-1))
    refused = api.call("GET", "/me", key["key"])
    assert refused.status_code == 401
    assert "expired" in refused.json["detail"]


def test_a_key_in_use_is_refused_once_it_has_expired(api: Api) -> None:
    key = api.new(Role.READER, expires_in=timedelta(seconds=1))
    assert api.call("GET", "/me", key["key"]).status_code == 200
    wait_until(lambda: api.call("GET", "/me", key["key"]).status_code == 401, 5, "the key is refused")


def test_a_key_is_valid_from_its_networks_only(api: Api) -> None:
    near = api.new(Role.READER, networks=(ip_network("127.0.0.0/8"),))
    far = api.new(Role.READER, networks=(ip_network("10.0.0.0/8"),))
    assert api.call("GET", "/me", near["key"]).status_code == 200
    assert api.call("GET", "/me", far["key"]).json["error_code"] == "forbidden"
    spoofed = {"Authorization": f"Bearer {far['key']}", "X-Forwarded-For": "10.0.0.1"}
    assert api.client.get("/me", headers=spoofed).status_code == 403, "the peer is no trusted proxy"
    api.app.config["BUCKET_TRUSTED_PROXIES"] = (ip_network("127.0.0.1"),)
    assert api.client.get("/me", headers=spoofed).status_code == 200
    two_hops = spoofed | {"X-Forwarded-For": "10.0.0.1, 192.0.2.7"}
    assert api.client.get("/me", headers=two_hops).status_code == 403, "what anyone may have put before the last hop"


def test_a_key_for_an_ipv4_mapped_address_is_one_for_the_ipv4_address(api: Api) -> None:
    body = {"role": "reader", "integrator": "acme", "networks": ["::ffff:127.0.0.1"]}
    key = api.as_admin("POST", "/keys", json=body).json
    assert key["networks"] == ["127.0.0.1/32"]
    assert api.call("GET", "/me", key["key"]).status_code == 200


def test_a_network_with_host_bits_is_refused_with_the_network_that_it_names(api: Api) -> None:
    body = {"role": "reader", "integrator": "acme", "networks": ["10.0.0.1/8"]}
    [fault] = api.as_admin("POST", "/keys", json=body).json["details"]
    assert fault["message"].endswith("'10.0.0.1/8' has host bits set; the network is 10.0.0.0/8")


def test_a_key_of_another_pepper_is_refused(api: Api, services: Services) -> None:
    other = Api(replace(services, settings=replace(services.settings, key_pepper="")))
    other.end()
    assert api.call("GET", "/me", other.keys[Role.ADMIN]["key"]).status_code == 401


def test_while_authentication_is_off_everyone_is_the_local_caller(services: Services) -> None:
    app, _ = create_app(replace(services, settings=replace(services.settings, auth="off")))
    client = app.test_client()
    assert client.get("/me").json["subject"] == "local"
    assert client.get("/me", headers={"Authorization": "Bearer nonsense"}).status_code == 200
    assert client.get("/keys").status_code == 200


def test_what_a_cache_may_store_of_a_caller_varies_with_its_key(api: Api) -> None:
    for path, key in (("/me", api.keys[Role.READER]["key"]), ("/executions", api.keys[Role.ADMIN]["key"])):
        headers = api.call("GET", path, key).headers
        assert (headers["Cache-Control"], headers["Vary"]) == ("private, no-cache", "Accept-Encoding, Authorization")
    assert api.call("GET", "/dead-letters", api.keys[Role.READER]["key"]).headers["Cache-Control"] == "no-store"
    assert "Authorization" not in api.call("GET", "/openapi.json").headers.get("Vary", ""), "everyone's document"
