"""The application that gunicorn's workers import: ``api.wsgi:app``."""

from __future__ import annotations

from api.app import create_app
from shared import fault_injection
from shared.bootstrap import bootstrap
from shared.settings import Settings, warn_about_unknown_variables
from shared.telemetry.logging_setup import configure_logging

settings = Settings.from_environ()
configure_logging("api", settings.log_level)
warn_about_unknown_variables()
fault_injection.arm_from(settings.faults)
app, start_background = create_app(bootstrap(settings, "api"))
start_background()
