"""The names of the dashboard's routes, for the tables of permissions, limits and the audit.

All of them are open: each page finds its caller by the session, and what it shows or does goes through a route of the
API, which checks the right, takes the limit and writes the audit.
"""

from __future__ import annotations

from typing import Final

PAGES: Final = (
    "GET /",
    "GET /ui/static/{file}",
    "GET /ui/login",
    "GET /ui/runs",
    "GET /ui/runs/{execution_id}",
    "GET /ui/baskets",
    "GET /ui/baskets/{name}",
    "GET /ui/baskets/{name}/run",
    "GET /ui/agents/{name}",
    "GET /ui/workers",
    "GET /ui/dead-letters",
    "GET /ui/consumers",
)
FORMS: Final = (
    "POST /ui/login",
    "POST /ui/logout",
    "POST /ui/actions",
    "POST /ui/runs",
    "POST /ui/runs/{execution_id}/cancel",
    "POST /ui/runs/{execution_id}/retry",
    "POST /ui/baskets/{name}/run",
    "POST /ui/dead-letters",
    "POST /ui/dead-letters/{letter_id}/requeue",
    "POST /ui/dead-letters/{letter_id}/dismiss",
    "POST /ui/consumers/{name}/delete",
)
"""What forms send: the route of the API that each calls is the one that is audited."""
DASHBOARD_ROUTES: Final = (*PAGES, *FORMS)
