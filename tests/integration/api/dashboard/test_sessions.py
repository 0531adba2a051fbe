"""Sessions of the dashboard: who gets in, what ends a session, and that no other site can use one."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest

from api.auth.key_service import KeyService
from shared.domain.access.caller import Role
from tests.integration.api.dashboard.conftest import Dashboard
from tests.waiting import wait_until

PAGES = ["/", "/ui/runs", "/ui/baskets", "/ui/workers", "/ui/dead-letters", "/ui/consumers"]


@pytest.mark.parametrize("page", PAGES)
def test_without_a_session_every_page_leads_to_the_log_in(dashboard: Dashboard, page: str) -> None:
    response = dashboard.visitor().get(page)
    assert response.status_code == 303
    assert response.headers["Location"].startswith("/ui/login?next=")
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("page", PAGES)
def test_with_a_session_every_page_is_shown(dashboard: Dashboard, page: str) -> None:
    response = dashboard.logged_in(Role.ADMIN).get(page)
    assert response.status_code == 200, response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_the_cookie_is_for_this_origin_alone_and_has_nothing_of_the_key(dashboard: Dashboard) -> None:
    key, visitor = dashboard.key()["key"], dashboard.visitor()
    cookie = visitor.log_in(key).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert key not in cookie
    stored = [dashboard.services.redis.get(name) for name in dashboard.services.redis.keys("metrics:session:*")]
    assert key.encode() not in b"".join(filter(None, stored))
    assert key not in visitor.get("/ui/runs").text
    session_id = cookie.partition("=")[2].partition(";")[0]
    assert not [name for name in dashboard.services.redis.keys("*") if session_id.encode() in name]


def test_over_https_the_cookie_is_secure(dashboard: Dashboard) -> None:
    response = dashboard.app.test_client().get("/ui/login", base_url="https://bucket.example")
    assert "Secure" in response.headers["Set-Cookie"]
    assert "Secure" not in dashboard.app.test_client().get("/ui/login").headers["Set-Cookie"]


@pytest.mark.parametrize("key", ["", "bkt_wrong", "no key at all", "bkt_abcdefghjkmn_" + "x" * 50])
def test_a_wrong_key_does_not_get_in(dashboard: Dashboard, key: str) -> None:
    visitor = dashboard.visitor()
    response = visitor.log_in(key)
    assert response.status_code == 403
    assert 'role="alert"' in response.text
    assert visitor.get("/ui/runs").status_code == 303


def test_the_session_that_a_visitor_came_with_is_not_the_one_that_is_logged_in(dashboard: Dashboard) -> None:
    """Else somebody who plants a cookie would be logged in with its victim."""
    visitor = dashboard.visitor()
    planted = visitor.get("/ui/login").headers["Set-Cookie"].partition(";")[0]
    assert visitor.log_in(dashboard.key()["key"]).headers["Set-Cookie"].partition(";")[0] != planted
    other = dashboard.app.test_client()
    assert other.get("/ui/runs", headers={"Cookie": planted}).status_code == 303


def test_the_api_does_not_take_the_cookie(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in(Role.ADMIN)
    assert visitor.get("/ui/runs").status_code == 200
    assert visitor.client.get("/executions").status_code == 401
    assert visitor.client.post("/run-basket", json={"basket_name": "working_test"}).status_code == 401


def test_a_form_needs_the_token_of_its_session(dashboard: Dashboard) -> None:
    run, visitor, other = dashboard.submit(), dashboard.logged_in(), dashboard.logged_in()
    for token in ("", "0" * 64, other.csrf_token):
        refused = visitor.client.post(f"/ui/runs/{run}/cancel", data={"csrf_token": token})
        assert refused.status_code == 403
    cross = visitor.post(f"/ui/runs/{run}/cancel", headers={"Sec-Fetch-Site": "cross-site"})
    same_site = visitor.post(f"/ui/runs/{run}/cancel", headers={"Sec-Fetch-Site": "same-site"})
    assert (cross.status_code, same_site.status_code) == (403, 403)
    assert dashboard.services.store.load("acme", run).status == "queued"
    assert visitor.post(f"/ui/runs/{run}/cancel", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert dashboard.services.store.load("acme", run).status == "cancelled"


def test_a_form_without_a_session_does_nothing(dashboard: Dashboard) -> None:
    run, visitor = dashboard.submit(), dashboard.visitor()
    visitor.get("/ui/login")
    assert visitor.post(f"/ui/runs/{run}/cancel").status_code == 403
    assert dashboard.services.store.load("acme", run).status == "queued"


def test_a_session_ends_with_its_key(dashboard: Dashboard) -> None:
    key, visitor = dashboard.key(), dashboard.visitor()
    visitor.log_in(key["key"])
    assert visitor.get("/ui/runs").status_code == 200
    KeyService(dashboard.services).revoke(key["id"])  # by another process: this one is told by nobody
    wait_until(lambda: visitor.get("/ui/runs").status_code == 303, 5, "the session is over")


def test_a_session_ends_when_its_key_expires(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in(expires_in=timedelta(seconds=1.5))
    wait_until(lambda: visitor.get("/ui/runs").status_code == 303, 10, "the session is over")


def test_a_log_out_ends_the_session_for_whoever_has_the_cookie(dashboard: Dashboard) -> None:
    visitor = dashboard.logged_in()
    cookie = visitor.client.get_cookie("bucket_session")
    assert cookie is not None
    assert visitor.post("/ui/logout").status_code == 303
    thief = dashboard.app.test_client()
    assert thief.get("/ui/runs", headers={"Cookie": f"bucket_session={cookie.value}"}).status_code == 303


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/executions", "/uix"]
)
def test_the_log_in_leads_to_no_other_place(dashboard: Dashboard, target: str) -> None:
    visitor = dashboard.visitor()
    visitor.get("/ui/login")
    response = visitor.post("/ui/login", key=dashboard.key()["key"], next=target)
    assert (response.status_code, response.headers["Location"]) == (303, "/")


def test_the_log_in_leads_back_to_the_page_that_was_asked_for(dashboard: Dashboard) -> None:
    visitor = dashboard.visitor()
    login = visitor.get("/ui/runs?status=failed").headers["Location"]
    assert 'name="next" value="/ui/runs?status=failed"' in visitor.get(login).text
    response = visitor.post("/ui/login", key=dashboard.key()["key"], next="/ui/runs?status=failed")
    assert response.headers["Location"] == "/ui/runs?status=failed"


def test_log_in_log_out_and_what_is_done_are_in_the_audit_in_the_name_of_the_key(dashboard: Dashboard) -> None:
    run, key, visitor = dashboard.submit(), dashboard.key(), dashboard.visitor()
    visitor.log_in("bkt_wrong")
    visitor.log_in(key["key"])
    visitor.post(f"/ui/runs/{run}/cancel")
    visitor.post("/ui/logout")

    def events() -> list[tuple[str, str]]:
        stored = dashboard.services.database.collection("audit_pending").find({"key_id": key["id"]}).sort("at", 1)
        return [(event["action"], event["outcome"]) for event in stored]

    expected = [("session.create", "ok"), ("execution.cancel", "ok"), ("session.delete", "ok")]
    wait_until(lambda: events() == expected, 5, f"not {events()}")
    failed = dashboard.services.database.collection("audit_pending").count_documents({"action": "auth.failed"})
    assert failed == 1


def test_a_refused_right_is_in_the_audit_once_and_a_wrong_log_in_is_no_refused_right(dashboard: Dashboard) -> None:
    run, key, visitor = dashboard.submit(), dashboard.key(Role.READER), dashboard.visitor()
    visitor.log_in("bkt_wrong")
    visitor.log_in(key["key"])
    assert visitor.post(f"/ui/runs/{run}/cancel").status_code == 403

    def denied() -> list[tuple[str, str]]:
        stored = dashboard.services.database.collection("audit_pending").find({"action": "auth.denied"})
        return [(event["subject"], event["object"]) for event in stored]

    expected = [(f"key:{key['id']}", "POST /executions/{execution_id}/cancel")]
    wait_until(lambda: denied() == expected, 5, f"not {denied()}")


def test_behind_a_trusted_proxy_all_addresses_keep_its_prefix(dashboard: Dashboard) -> None:
    dashboard.app.config["BUCKET_TRUSTED_PROXIES"] = (ip_network("127.0.0.0/8"),)
    response = dashboard.visitor().get("/ui/runs", X_Forwarded_Prefix="/jobs")
    assert response.headers["Location"].startswith("/jobs/ui/login")
    login = dashboard.visitor().get("/ui/login", X_Forwarded_Prefix="/jobs")
    assert "Path=/jobs/" in login.headers["Set-Cookie"]
    assert 'action="/jobs/ui/login"' in login.text
    assert 'href="/jobs/ui/static/dashboard.css"' in login.text
