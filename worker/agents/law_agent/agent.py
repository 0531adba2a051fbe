"""Asks a provider of legal information a question, and checks its answer; it advises nobody by itself.

The provider gets ``POST <LAW_AGENT_API_URL>/questions`` with ``{question, jurisdiction?, language?}`` and answers
``{answer, sources?: [{title, url?}]}``.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from worker.agent_errors import PermanentError
from worker.context import AgentContext

ANSWER_MAX_CHARS: Final = 100_000
SOURCES_MAX: Final = 100
_TEXT_MAX_CHARS: Final = 2_000
_DISCLAIMER: Final = "Legal information by an outside provider, not checked by a lawyer; it is no legal advice."


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{answer, sources, disclaimer}``, and ``unread`` with what of the provider's answer is left out."""
    question = {name: given[name] for name in ("question", "jurisdiction", "language") if given.get(name)}
    key = ctx.settings.get("LAW_AGENT_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = ctx.settings["LAW_AGENT_API_URL"].rstrip("/")
    reply = ctx.http.post(f"{url}/questions", json=question, headers=headers).json()
    answer = reply.get("answer") if isinstance(reply, dict) else None
    if not isinstance(answer, str) or not answer.strip():
        raise PermanentError("the provider of legal information sent no answer, which is a text in the member answer")
    unread: list[str] = []
    if len(answer) > ANSWER_MAX_CHARS:
        unread.append(f"the answer is cut: it has {len(answer):,} characters, and {ANSWER_MAX_CHARS:,} are kept")
    sources = _sources_of(reply.get("sources") or [], unread)
    ctx.log("asked the provider of legal information", sources=len(sources))
    return {
        "answer": answer[:ANSWER_MAX_CHARS],
        "sources": sources,
        "disclaimer": _DISCLAIMER,
        "unread": unread,
    }


def _sources_of(raw: Any, unread: list[str]) -> list[dict[str, str]]:
    if not isinstance(raw, list):
        unread.append("sources is left out: it is no list")
        return []
    sources: list[dict[str, str]] = []
    for number, entry in enumerate(raw[:SOURCES_MAX], 1):
        title = entry.get("title") if isinstance(entry, dict) else None
        if not isinstance(title, str) or not title.strip():
            unread.append(f"source {number} is left out: it has no title")
            continue
        source = {"title": title[:_TEXT_MAX_CHARS]}
        url = entry.get("url")
        if _is_web_address(url):
            source["url"] = url
        elif url is not None:
            unread.append(f"the url of source {number} is left out: it is no web address")
        sources.append(source)
    if len(raw) > SOURCES_MAX:
        unread.append(f"{len(raw) - SOURCES_MAX} sources after the first {SOURCES_MAX} are left out")
    return sources


def _is_web_address(url: Any) -> bool:
    if not isinstance(url, str) or len(url) > _TEXT_MAX_CHARS:
        return False
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        return False
