"""All runs that match, acted on from the dashboard, with a real worker: counted first, then confirmed."""

from __future__ import annotations

import re

import requests

from tests.acceptance.client import ApiClient

CSRF = re.compile(r'name="csrf_token" value="([0-9a-f]+)"')


def test_matching_runs_are_counted_then_cancelled_after_a_confirmation(caller: ApiClient) -> None:
    body = {"basket_name": "working_test", "tags": ["from-the-dashboard"], "run_after_s": 3600}
    base = caller.stack.url
    runs = [requests.post(f"{base}/run-basket", json=body, timeout=5).json()["execution_id"] for _ in range(3)]
    browser = requests.Session()
    browser.get(f"{base}/ui/login", timeout=5)
    [token] = set(CSRF.findall(browser.get(f"{base}/ui/runs?tag=from-the-dashboard", timeout=5).text))
    form = {"csrf_token": token, "action": "cancel", "query": "tag=from-the-dashboard"}
    page = browser.post(f"{base}/ui/actions", data=form, timeout=20)
    assert "Cancel 3 runs" in page.text
    assert {caller.poll(run)["status"] for run in runs} == {"scheduled"}, "they were only counted"
    [form_key] = re.findall(r'name="form_key" value="(\w+)"', page.text)
    confirmed = form | {"confirmed": "yes", "form_key": form_key}
    done = browser.post(f"{base}/ui/actions", data=confirmed, timeout=20, allow_redirects=False)
    action_id = done.headers["Location"].rpartition("/")[2]
    assert caller.wait_done(action_id)["result"]["done"] == 3
    assert {caller.poll(run)["status"] for run in runs} == {"cancelled"}
    again = browser.post(f"{base}/ui/actions", data=confirmed, timeout=20, allow_redirects=False)
    assert again.headers["Location"] == done.headers["Location"], "a form that is sent twice acts once"
