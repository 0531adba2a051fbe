"""docs/operate.md has a section for each alert of ``ops/prometheus/rules.yml``, and each alert names its section."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = (ROOT / "ops" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
ALERTS = re.findall(r"alert: (\w+)", RULES)


def test_each_alert_has_its_section_in_the_guide() -> None:
    assert len(ALERTS) >= 15
    assert re.findall(r"^### (Bucket\w+)$", GUIDE, re.MULTILINE) == ALERTS
    assert re.findall(r"runbook: (\S+)", RULES) == [f"docs/operate.md#{name.lower()}" for name in ALERTS]
