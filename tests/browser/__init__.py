"""Tests of the dashboard in a real browser: Chromium opens the pages of a real stack."""
