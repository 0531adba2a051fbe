"""``bucket agents`` and ``baskets``: what there is to run; and the state of Bucket, of the settings, of the shell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from bucket_client import reads
from bucket_client.cli.error_report import FAILED
from bucket_client.cli.output import Column, safe
from bucket_client.cli.param_types import JsonObject
from bucket_client.cli.run_commands import dry_run_option
from bucket_client.cli.session import (
    Session,
    SessionCommand,
    SessionGroup,
    complete_agent,
    complete_basket,
    pass_session,
    source_of,
)

_HEALTH_COLOURS: Final = {
    "connected": "green", "healthy": "green", "degraded": "yellow", "unhealthy": "red", "disconnected": "red"
}  # fmt: skip
_COMPLETIONS: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_BASKET_KEYS: Final = {"name", "agents", "steps", "execution_strategy", "description"}


@click.group(cls=SessionGroup, invoke_without_command=True)
@click.option("--domain", metavar="NAME", help="Only agents of this domain.")
@pass_session
@click.pass_context
def agents(context: click.Context, session: Session, domain: str | None) -> None:
    """List the agents; `show` describes one."""
    if context.invoked_subcommand is not None:
        return
    with session.open_bucket() as bucket:
        specs = bucket.agents(domain)
    columns = [
        Column("agent"),
        Column("version", dropped_at=2),
        Column("domains", dropped_at=3),
        Column("description", dropped_at=1, wraps=True),
    ]
    rows = [
        (spec["name"], spec.get("version", ""), ", ".join(spec.get("domains", ())), _description_of(spec))
        for spec in specs
    ]
    _print_names(session, specs, columns, rows)


def _description_of(spec: Mapping[str, Any]) -> str:
    """Return what an agent does, or why it is unavailable; its spec may lack every member but its name."""
    availability = spec.get("availability") or {}
    if availability.get("status") == "unavailable":
        return f"unavailable: {availability.get('reason')}"
    return str(spec.get("description", ""))


@agents.command("show")
@click.argument("name", shell_complete=complete_agent)
@pass_session
def show_agent(session: Session, name: str) -> None:
    """Describe an agent: what it takes and returns."""
    with session.open_bucket() as bucket:
        spec = bucket.agent(name)
    _print_members(session, spec, [*(key for key in spec if not isinstance(spec[key], dict)), *spec])


@click.group(cls=SessionGroup, invoke_without_command=True)
@pass_session
@click.pass_context
def baskets(context: click.Context, session: Session) -> None:
    """List the baskets; `show` describes one, `create` and `delete` change them."""
    if context.invoked_subcommand is not None:
        return
    with session.open_bucket() as bucket:
        found = bucket.baskets()
    columns = [
        Column("basket"),
        Column("strategy", dropped_at=3),
        Column("agents", dropped_at=1, wraps=True),
        Column("description", dropped_at=2, wraps=True),
    ]
    rows = [
        (
            basket["name"],
            basket.get("execution_strategy") or "-",
            ", ".join(_agents_of(basket)),
            basket.get("description") or "",
        )
        for basket in found
    ]
    _print_names(session, found, columns, rows)


@baskets.command("show")
@click.argument("name", shell_complete=complete_basket)
@pass_session
def show_basket(session: Session, name: str) -> None:
    """Describe a basket."""
    with session.open_bucket() as bucket:
        basket = bucket.basket(name)
    _print_members(session, basket, [key for key in basket if key != "basket_name"])


@baskets.command("create")
@click.argument("name")
@click.option(
    "--agent",
    "agents_given",
    multiple=True,
    metavar="AGENT",
    shell_complete=complete_agent,
    help="One of its agents; repeat it, in order.",
)
@click.option("--strategy", metavar="NAME", help="sequential (the default) or parallel.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("-f", "--file", "definition", type=JsonObject(), help="The definition, instead of --agent.")
@dry_run_option
@pass_session
def create_basket(
    session: Session,
    name: str,
    *,
    agents_given: tuple[str, ...],
    strategy: str | None,
    description: str | None,
    definition: dict[str, Any] | None,
    dry_run: bool,
) -> None:
    """Store a basket under a free name. A basket is never changed."""
    if (definition is None) == (not agents_given):
        raise click.UsageError("give the agents with --agent, or a definition with --file")
    members: dict[str, Any] = dict(definition or {"agents": list(agents_given)})
    if unknown := members.keys() - _BASKET_KEYS:
        raise click.UsageError(f"a basket has no {', '.join(sorted(unknown))}")
    if members.pop("name", name) != name:
        raise click.UsageError("the definition has another name")
    members |= {} if strategy is None else {"execution_strategy": strategy}
    members |= {} if description is None else {"description": description}
    if dry_run:
        session.preview(lambda settings: reads.create_basket(settings, name, **members))
        return
    with session.open_bucket() as bucket:
        created = bucket.create_basket(name, **members)
    if session.json:
        session.output.json(created)
    elif not session.quiet:
        session.output.data(safe(f"basket {name} is stored"))


@baskets.command("delete")
@click.argument("name", shell_complete=complete_basket)
@dry_run_option
@pass_session
def delete_basket(session: Session, name: str, *, dry_run: bool) -> None:
    """Delete a basket. Its runs stay readable."""
    if dry_run:
        session.preview(lambda settings: reads.delete_basket(settings, name))
        return
    with session.open_bucket() as bucket:
        bucket.delete_basket(name)
    if session.json:
        session.output.json({"deleted": name})
    elif not session.quiet:
        session.output.data(safe(f"basket {name} is deleted"))


def _agents_of(basket: Mapping[str, Any]) -> list[str]:
    return [str(agent) for agent in basket.get("agents") or [step["agent"] for step in basket.get("steps") or ()]]


def _print_names(
    session: Session, found: Sequence[Mapping[str, Any]], columns: list[Column], rows: list[tuple[Any, ...]]
) -> None:
    if session.json:
        session.output.json(found)
    elif session.quiet:
        for each in found:
            session.output.data(safe(each["name"]))
    else:
        session.output.table(columns, rows)


def _print_members(session: Session, spec: Mapping[str, Any], order: Sequence[str]) -> None:
    """Print the members of a spec, short ones first, each once."""
    if session.json:
        session.output.json(spec)
        return
    for key in dict.fromkeys(order):
        value = spec[key]
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value)):
            session.output.data(f"\n{safe(key)}")
            session.output.json(value)
        elif value not in (None, [], ""):
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            session.output.data(f"{safe(key):<19} {safe(text)}")


@click.command(cls=SessionCommand)
@pass_session
@click.pass_context
def health(context: click.Context, session: Session) -> None:
    """Show the state of Bucket. The exit code is 0 if it is healthy, 1 if not, 3 if it does not reply."""
    with session.open_bucket(retries=0) as bucket:  # it asks how Bucket is now
        found = bucket.health()
    if session.json:
        session.output.json(found)
    elif not session.quiet:
        if "services" in found:
            session.output.data(f"{safe(found['status'])}, version {safe(found['version'])}")
            columns = [Column("service"), Column("state", style_of=_HEALTH_COLOURS)]
            if "parts" in found:
                rows = [(name, part["status"], part["detail"]) for name, part in found["parts"].items()]
                session.output.table([*columns, Column("detail", wraps=True)], rows)
            else:  # a server of an earlier release has a word for each
                session.output.table(columns, found["services"].items())
        else:  # the server requires keys: without a valid one it says no more
            session.output.data(safe(found["status"]))
            session.output.note("to see each service, set BUCKET_API_KEY to a valid key")
    if found["status"] != "healthy":
        context.exit(FAILED)


@click.command(cls=SessionCommand)
@pass_session
def config(session: Session) -> None:
    """Show each setting and where it comes from; the key is masked."""
    settings = session.settings()
    rows = [
        ("url", settings.url, source_of(session.url, "BUCKET_URL")),
        (
            "api_key",
            "not set" if settings.api_key is None else "********",
            source_of(session.api_key, "BUCKET_API_KEY"),
        ),
        ("version", metadata.version("bucket-client"), "bucket-client"),
    ]
    if session.json:
        session.output.json({name: {"value": value, "from": source} for name, value, source in rows})
    else:
        session.output.table([Column("setting"), Column("value"), Column("from", dropped_at=1)], rows)


@click.command(cls=SessionCommand)
@click.argument("shell", type=click.Choice(list(_COMPLETIONS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(bucket completion bash)" in ~/.bashrc
    zsh:  eval "$(bucket completion zsh)" in ~/.zshrc
    fish: bucket completion fish > ~/.config/fish/completions/bucket.fish
    """  # noqa: D301 -- click reads the character
    script = _COMPLETIONS[shell](context.find_root().command, {}, "bucket", "_BUCKET_COMPLETE").source()
    context.ensure_object(Session).output.data(script.rstrip())


@click.group(cls=SessionGroup)
def connectors() -> None:
    """Check the connectors between Bucket and Core."""


@connectors.command("check")
@pass_session
@click.pass_context
def check_connectors(context: click.Context, session: Session) -> None:
    """Check the settings and the files of the connectors, without Core. The exit code is 1 if a check fails."""
    from bucket_client import connectors as bhiv  # here, because nothing else needs them

    logging.getLogger("bucket_client").addHandler(logging.NullHandler())  # the failures that a check makes are no news
    results = bhiv.check_connectors()
    if session.json:
        session.output.json([{"name": each.name, "passed": each.passed, "detail": each.detail} for each in results])
    elif not session.quiet:
        columns = [Column("check"), Column("", style_of={"ok": "green", "failed": "red"}), Column("detail", wraps=True)]
        rows = [(each.name, "ok" if each.passed else "failed", each.detail) for each in results]
        session.output.table(columns, rows)
    if not all(each.passed for each in results):
        context.exit(FAILED)
