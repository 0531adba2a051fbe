"""``bucketd up``: runs the whole stack until Ctrl-C; it reports that Bucket is up only after a run has completed."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

import click

from compose import locked_packages, mongodb_checks, redis_checks
from compose.cli import console
from compose.embedded import api_port, selftest, socket_dir
from compose.embedded.directory_lock import DirectoryLock, read_holder_of
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.log_tail import LogTail
from compose.embedded.process_plan import Stage
from compose.embedded.stack import Stack, build_stack
from compose.embedded.supervisor import Supervisor
from compose.operator_error import OperatorError
from compose.own_agents.agents_watch import AgentsWatch
from compose.server_report import ServerReport
from compose.stack_keys import StackKeys
from shared.bootstrap import Services, bootstrap
from shared.errors import SettingsError
from shared.settings import Settings, warn_about_unknown_variables

_CHECK_EVERY_S: Final = 0.2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequested(BaseException):
    """A signal asked to stop; raised by the signal handler, so that it interrupts every wait."""


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of all processes; of mongod without its info lines.")
@click.option("--auth", is_flag=True, help="Require keys; the first start prints the key of an admin.")
@console.data_option
def up(*, verbose: bool, auth: bool, data: Path) -> None:
    """Start redis-server, mongod, the API and a worker on this machine; Ctrl-C stops them all."""
    if auth:
        os.environ["BUCKET_AUTH"] = "required"
    try:
        with closing(DirectoryLock(data)) as lock:
            _run_stack(lock, data, verbose=verbose)
    except OperatorError as error:
        console.print_failure("bucketd up", error)
        sys.exit(1)
    except SettingsError as error:
        console.print_failure("settings", OperatorError("the environment variables are wrong", fix=str(error)))
        sys.exit(1)


def _run_stack(lock: DirectoryLock, directory: Path, *, verbose: bool) -> None:
    logs = directory / "log"
    logs.mkdir(exist_ok=True)
    for old_log in logs.glob("*.log*"):
        old_log.unlink()
    # Left over if the last stack and its group reaper were killed.
    socket_dir.remove_socket_dir(Path(read_holder_of(directory).get("sockets", "/")))
    warn_about_unknown_variables()
    settings = Settings.from_environ()
    settings = replace(settings, port=api_port.pick_port(settings.host, settings.port))
    sockets = socket_dir.make_socket_dir()
    lock.write_holder(url=api_port.local_url(settings.host, settings.port), sockets=str(sockets))
    try:
        keys = StackKeys.issue(settings) if settings.requires_key else None
        startup_key = None if keys is None else keys.startup
        stack = build_stack(settings, os.environ, sockets, directory, key=startup_key)
        log_tail = LogTail(logs, console.say) if verbose else nullcontext()
        with (
            log_tail,
            GroupReaper(sockets) as reaper,
            _stop_on_exit(Supervisor(logs, reaper, console.print_warning)) as supervisor,
        ):
            watch = None if settings.agents_dir is None else AgentsWatch(settings.agents_dir)
            with _open_services(settings, stack) as services:
                admin_key = _start_stack(supervisor, stack, keys, services)
                sentence = selftest.run_selftest(stack.url, logs, supervisor.check_children, key=startup_key)
                if keys is not None:
                    keys.end_startup(services)
            _print_welcome(stack, directory, sentence, "" if keys is None else _describe_key(admin_key))
            reload_agents = _agents_reload(settings, watch, supervisor, stack.url)
            while True:
                supervisor.check_children()
                reload_agents()
                time.sleep(_CHECK_EVERY_S)
    except _StopRequested:
        console.say("stopped")
    finally:
        socket_dir.remove_socket_dir(sockets)


def _agents_reload(
    settings: Settings, watch: AgentsWatch | None, supervisor: Supervisor, url: str
) -> Callable[[], None]:
    """Print what is wrong with the author's agents, and return what reloads them when they have changed."""
    if settings.agents_dir is None or watch is None:
        return lambda: None
    from compose.own_agents.agents_reload import AgentsReload  # only here: it loads what runs agents

    return AgentsReload(settings.agents_dir, watch, supervisor, url).check


@contextmanager
def _open_services(settings: Settings, stack: Stack) -> Iterator[Services]:
    """Yield services on the stores of a stack; they connect when they are used."""
    services = bootstrap(replace(settings, redis_url=stack.redis_url, mongodb_url=stack.mongodb_url), "operator")
    with closing(services.redis), closing(services.database):
        yield services


def _start_stack(supervisor: Supervisor, stack: Stack, keys: StackKeys | None, services: Services) -> str | None:
    """Start the stages in turn, and store ``keys`` as soon as MongoDB runs; return the admin's key if it is new."""
    with console.timed_step("python") as details:
        details.append(platform.python_version())
    with console.timed_step("packages") as details:
        details.append(locked_packages.check_against_lock(console.project_root() / "requirements.lock"))
    with console.timed_step(stack.redis_stage.title) as details:
        supervisor.start(stack.redis_stage)
        details.append(_tell(stack.redis_stage, "REDIS_URL", redis_checks.check_redis(stack.redis_url)))
    with console.timed_step(stack.mongod_stage.title) as details:
        supervisor.start(stack.mongod_stage)
        details.append(_tell(stack.mongod_stage, "MONGODB_URL", mongodb_checks.check_mongodb(stack.mongodb_url)))
    admin_key = None if keys is None else keys.store(services)
    with console.timed_step(stack.app_stage.title):
        supervisor.start(stack.app_stage)
    return admin_key


def _tell(stage: Stage, variable: str, report: ServerReport) -> str:
    """Print the warnings of a server, unless it is an embedded one, and return its version."""
    for warning in () if stage.children else report.warnings:
        console.print_warning(f"{variable}: {warning}")
    return report.version


@contextmanager
def _stop_on_exit(supervisor: Supervisor) -> Iterator[Supervisor]:
    """Stop ``supervisor`` in order, however the block ends; a second signal meanwhile kills everything at once."""

    def stop_in_order(_number: int, _frame: FrameType | None) -> None:
        raise _StopRequested

    def kill_at_once(_number: int, _frame: FrameType | None) -> None:
        supervisor.kill()

    for number in _SIGNALS:
        signal.signal(number, stop_in_order)
    try:
        yield supervisor
    except _StopRequested:
        console.say("\nstopping; press Ctrl-C again to stop at once")
        raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, kill_at_once)
        supervisor.stop()


def _describe_key(admin_key: str | None) -> str:
    """Return what the welcome says about keys."""
    if admin_key is None:
        make_one = "  .venv/bin/bucketd keys create --role admin"
        return f"There is an admin's key already: set it as BUCKET_API_KEY, or make one with\n\n{make_one}\n\n"
    return f"The key of an admin, which is shown only now; keep it:\n\n  export BUCKET_API_KEY={admin_key}\n\n"


def _print_welcome(stack: Stack, directory: Path, selftest_result: str, about_keys: str) -> None:
    body = json.dumps(selftest.EXAMPLE)
    header = ' \\\n    -H "Authorization: Bearer $BUCKET_API_KEY"' if about_keys else ""
    console.say(
        f"\n{selftest_result} Bucket is up:\n\n"
        f"  API     {stack.url}\n"
        f"  health  {stack.url}/health\n"
        f"  data    {directory}\n"
        f"  logs    {directory / 'log'} (or start with -v)\n\n"
        f"{about_keys}Try it:\n\n"
        f"  curl -X POST {stack.url}/run-basket -H 'Content-Type: application/json'{header} \\\n"
        f"    -d '{body}'\n\n"
        f"then poll the status_url of the response until done is true."
    )
    client = Path(sys.executable).with_name("bucket")
    if client.exists():  # the image has none
        shown = client.relative_to(Path.cwd()) if client.is_relative_to(Path.cwd()) else client
        basket = selftest.EXAMPLE["basket_name"]
        console.say(f"With the client:\n\n  BUCKET_URL={stack.url} {shown} run {basket} --wait\n")
    console.say("Ctrl-C stops everything.")
