"""The application of gunicorn, ``api.wsgi:app``: loaded once, in its master, from which all worker processes fork.

So nothing here may connect or start a thread; each worker process starts the application's threads itself.
"""

from __future__ import annotations

from api.app import create_app
from api.gunicorn_worker import START_BACKGROUND
from shared import fault_injection
from shared.bootstrap import bootstrap
from shared.errors import BucketError
from shared.settings import Settings, warn_about_unknown_variables, warn_about_unused_settings
from shared.telemetry.logging_setup import configure_logging

settings = Settings.from_environ()
configure_logging("api", settings.log_level)
warn_about_unknown_variables()
warn_about_unused_settings(settings)
fault_injection.arm_from(settings.faults)
try:
    services = bootstrap(settings, "api")
    services.catalogue.log_faults()
    app, start_background = create_app(services)
except BucketError as error:
    raise SystemExit(f"the API cannot start: {error.message}") from error
app.extensions[START_BACKGROUND] = start_background
