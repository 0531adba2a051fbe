"""docs/security.md says of each route and each role what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from api.auth.route_permissions import ROUTE_PERMISSIONS
from shared.domain.access.caller import Role

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_guide_lists_each_route_with_what_it_needs() -> None:
    listed = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`]+)` \| `(\w+)` \|$", GUIDE, re.MULTILINE)
    assert listed == [(route, str(permission)) for route, permission in ROUTE_PERMISSIONS.items()]


def test_the_guide_lists_each_role() -> None:
    section = GUIDE.partition("## Roles")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(role) for role in Role]
