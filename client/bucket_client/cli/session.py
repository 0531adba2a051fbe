"""The session of one command: the global options, which are the same before and after the subcommand."""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from bucket_client.cli.output import Output, json_text, safe
from bucket_client.client import Bucket
from bucket_client.drivers import SyncDriver
from bucket_client.effects import NoReply, Reply, Request, Sleep
from bucket_client.errors import Invalid
from bucket_client.settings import ClientSettings

_COMPLETION_S: Final = 2.0
_AWAY: Final = frozenset({429, 502, 503, 504})


class _TellingDriver(SyncDriver):
    """A driver that says, once for each outage, that Bucket does not serve and that the request is repeated."""

    def __init__(self, settings: ClientSettings, tell: Callable[[str], None]) -> None:
        super().__init__(settings)
        self._tell = tell
        self._is_away = False
        self._is_closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; threads that still wait then are no news."""
        self._is_closed = True
        super().close()

    def _perform(self, effect: Request | Sleep) -> Reply | NoReply | None:
        outcome = super()._perform(effect)
        if outcome is None or self._is_closed:
            return outcome
        reason = outcome.reason if isinstance(outcome, NoReply) else f"status {outcome.status}"
        is_away = isinstance(outcome, NoReply) or outcome.status in _AWAY
        with self._lock:
            was_away, self._is_away = self._is_away, is_away
        if is_away and not was_away and self.settings.retries:
            self._tell(safe(f"{self.settings.url} does not serve now ({reason}); trying again"))
        elif was_away and not is_away:
            self._tell(f"{self.settings.url} serves again")
        return outcome


class CommandBucket(Bucket):
    """The client of a command: the same as any other, and it says when Bucket is away."""

    def __init__(self, settings: ClientSettings, tell: Callable[[str], None]) -> None:
        self._driver = _TellingDriver(settings, tell)


@dataclass(slots=True)
class Session:
    """What the global options say, and the client and the output that they lead to."""

    arguments: tuple[str, ...] = ()
    """The command line after ``bucket``, as it was typed."""
    url: str | None = None
    api_key: str | None = None
    json: bool = False
    quiet: bool = False
    no_color: bool = False

    @property
    def output(self) -> Output:
        """Return the output of the command."""
        return Output(self.json, self.quiet, self.no_color)

    def open_bucket(self, *, retries: int = 5, timeout_s: float = 30.0) -> Bucket:
        """Return a client to use in a ``with``. Raises UsageError for an address that is none."""
        return CommandBucket(replace(self.settings(), retries=retries, timeout_s=timeout_s), self.output.note)

    def settings(self) -> ClientSettings:
        """Return the settings that the client would have. Raises UsageError for an address that is none."""
        try:
            return ClientSettings.read(self.url, self.api_key, timeout=30.0, retries=5)
        except Invalid as error:
            raise click.UsageError(error.message) from None

    def preview(self, flow_of: Callable[[ClientSettings], Generator[Any, Any, Any]]) -> None:
        """Print the first request of a flow, and send nothing: a flow only asks its driver to send."""
        settings = self.settings()
        flow = flow_of(settings)
        request: Request = next(flow)
        flow.close()
        body = None if request.body is None else json.loads(request.body)
        if self.json:
            headers = dict(request.headers)
            self.output.json({"method": request.method, "path": request.path, "headers": headers, "body": body})
            return
        self.output.data(safe(f"{request.method} {settings.url}{request.path}"))
        for name, value in request.headers.items():
            self.output.data(safe(f"{name}: {value}"))
        if body is not None:
            self.output.data(json_text(body, indent=2))
        self.output.note("dry run: nothing was sent")

    def line_of(self, *words: str) -> str:
        """Return a command line to paste that calls the same server; it never has the key."""
        address = [] if self.url is None else ["--url", self.url]
        return shlex.join(["bucket", *address, *words])

    def line_again(self, key: str) -> str:
        """Return this very command line with an idempotency key, so that it is safe to send again."""
        words = list(_without_api_key(self.arguments))
        has_key = any(word == "--key" or word.startswith("--key=") for word in words)
        return shlex.join(["bucket", *words, *([] if has_key else ["--key", key])])


pass_session = click.make_pass_decorator(Session, ensure=True)


def _without_api_key(arguments: Sequence[str]) -> Iterator[str]:
    words = iter(arguments)
    for word in words:
        if word == "--api-key":
            next(words, None)
        elif not word.startswith("--api-key="):
            yield word


def _remember(context: click.Context, option: click.Parameter, value: Any) -> Any:
    session = context.ensure_object(Session)
    if option.name is not None and value not in (None, False):
        setattr(session, option.name, value)
    return value


def _global_options() -> list[click.Parameter]:
    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, **more)

    return [
        option("--url", metavar="URL", help="Address of Bucket; by default BUCKET_URL, or http://localhost:8000."),
        option("--api-key", metavar="KEY", help="Key for Bucket. Prefer BUCKET_API_KEY: other users see arguments."),
        option("--json", is_flag=True, help="Print JSON on stdout and nothing else there; errors as JSON on stderr."),
        option("-q", "--quiet", is_flag=True, help="Print data alone, such as ids: no progress and no notes."),
        option("--no-color", is_flag=True, help="No colour, also on a terminal; so does NO_COLOR=1."),
    ]


class _GlobalOptionsMixin(click.Command):
    """A command that has the global options besides its own, in a section of their own in its help."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.global_options = _global_options()
        self.params += self.global_options

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the command, its subcommands, then the global options."""
        for title, wanted in (("Options", False), ("Global options", True)):
            options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
            params = [option for option in options if (option in self.global_options) is wanted]
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
            if isinstance(self, click.Group) and not wanted:
                self.format_commands(ctx, formatter)


class SessionCommand(_GlobalOptionsMixin):
    """A command with the global options."""


class SessionGroup(_GlobalOptionsMixin, click.Group):
    """A group of commands with the global options."""

    command_class = SessionCommand
    group_class = type


def name_completion(
    names_of: Callable[[Bucket], Sequence[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a shell completion of names that the server lists; if it does not reply soon, there are none."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        session = context.ensure_object(Session)
        try:
            with Bucket(session.url, session.api_key, timeout=_COMPLETION_S, retries=0) as bucket:
                return [name for name in names_of(bucket) if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001 -- a completion must not disturb the line that is being typed
            return []

    return complete


complete_basket = name_completion(lambda bucket: [basket["name"] for basket in bucket.baskets()])
complete_agent = name_completion(lambda bucket: [agent["name"] for agent in bucket.agents()])


def source_of(option: str | None, variable: str) -> str:
    """Return where a setting comes from: its option, its variable of the environment, or the default."""
    if option is not None:
        return f"--{variable.removeprefix('BUCKET_').lower().replace('_', '-')}"
    return variable if os.environ.get(variable) else "default"
