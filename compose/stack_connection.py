"""Connects an operator's command to the Redis and the MongoDB of a stack, and builds the services on top of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from compose.embedded import directory_lock, server_plans
from compose.operator_error import OperatorError
from shared.bootstrap import Services, bootstrap
from shared.settings import Settings


@contextmanager
def open_services(data: Path) -> Iterator[Services]:
    """Yield services for REDIS_URL and MONGODB_URL; one that is not set is taken from the running embedded stack.

    ``data`` is that stack's directory. Raises OperatorError if there is no such stack, SettingsError for wrong
    settings.
    """
    settings = Settings.from_environ()
    if not (os.environ.get("REDIS_URL") and os.environ.get("MONGODB_URL")):
        sockets = Path(directory_lock.read_holder_of(data).get("sockets", "/nowhere"))
        if not sockets.is_dir():
            raise OperatorError(
                f"REDIS_URL and MONGODB_URL are not both set, and no stack of make up runs in {data}",
                fix="set both as the workers have them, or start make up first",
            )
        redis_url = os.environ.get("REDIS_URL") or server_plans.redis_url(sockets)
        mongodb_url = os.environ.get("MONGODB_URL") or server_plans.mongodb_url(sockets)
        settings = replace(settings, redis_url=redis_url, mongodb_url=mongodb_url)
    services = bootstrap(settings, "operator")
    with closing(services.redis), closing(services.database):
        yield services
