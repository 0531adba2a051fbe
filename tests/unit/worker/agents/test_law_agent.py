"""The agent that asks a provider of legal information: what it sends, and what it makes of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from worker.agent_errors import PermanentError
from worker.gateway.gateway_errors import PermanentGatewayError
from worker.testing import FakeContext, FakeHttp, run_agent

URL = "http://law.example/api/questions"
SETTINGS = {"LAW_AGENT_API_URL": "http://law.example/api/", "LAW_AGENT_API_KEY": "k3y"}


def ask(status: int, reply: Any, given: dict[str, Any] | None = None) -> tuple[dict[str, Any], FakeHttp]:
    http = FakeHttp({("POST", URL): (status, reply)})
    question = {"question": "How long?", "jurisdiction": "DE"} if given is None else given
    return run_agent("law_agent", question, FakeContext(http=http, settings=SETTINGS)), http


def test_the_question_goes_to_the_provider_with_the_key() -> None:
    output, http = ask(200, {"answer": "Three months.", "sources": [{"title": "Code", "url": "https://law.example/1"}]})
    assert (output["answer"], output["unread"]) == ("Three months.", [])
    assert output["sources"] == [{"title": "Code", "url": "https://law.example/1"}]
    [call] = http.calls
    assert call.options["json"] == {"question": "How long?", "jurisdiction": "DE"}
    assert call.options["headers"] == {"Authorization": "Bearer k3y"}


def test_what_is_wrong_in_an_answer_is_told_and_left_out() -> None:
    sources = [
        "x",
        {"title": " "},
        {"title": "A", "url": "javascript:x"},
        {"title": "B", "url": 1},
        *[{"title": "C"}] * 100,
    ]
    output, _ = ask(200, {"answer": "y" * 100_001, "sources": sources})
    assert len(output["answer"]) == 100_000
    assert output["sources"][:2] == [{"title": "A"}, {"title": "B"}]
    assert output["unread"] == [
        "the answer is cut: it has 100,001 characters, and 100,000 are kept",
        "source 1 is left out: it has no title",
        "source 2 is left out: it has no title",
        "the url of source 3 is left out: it is no web address",
        "the url of source 4 is left out: it is no web address",
        "4 sources after the first 100 are left out",
    ]
    assert ask(200, {"answer": "y", "sources": 5})[0]["unread"] == ["sources is left out: it is no list"]


@pytest.mark.parametrize("reply", [{}, [], {"answer": None}, {"answer": "  "}, {"answer": 5}])
def test_a_reply_without_an_answer_fails_the_step(reply: Any) -> None:
    with pytest.raises(PermanentError, match="sent no answer"):
        ask(200, reply)


def test_a_refusal_of_the_provider_is_the_gateways_error() -> None:
    with pytest.raises(PermanentGatewayError):
        ask(403, {})
