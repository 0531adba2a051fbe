"""The pages of baskets and agents, and the form by which a basket is run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import flask
from flask import request

from api.dashboard import internal_api
from api.dashboard.basket_graph import draw, steps_of
from api.dashboard.internal_api import ApiRefused, segment
from api.dashboard.pages import redirect, render_page
from api.dashboard.run_form import FormField, InvalidField, fields_of, parse_fields, parse_json, to_json
from api.dashboard.selected_rows import idempotency_key
from api.dashboard.sessions import Sessions, logged_in_caller
from shared.domain.access.caller import Caller
from shared.ids import EXECUTION_ID_PATTERN

_FAULTS_OF_INPUT: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


@dataclass(frozen=True, slots=True)
class RunForm:
    """What the form of a basket shows: its fields, or the whole input as JSON."""

    fields: Sequence[FormField]
    json: str


def add_pages(blp: flask.Blueprint, sessions: Sessions) -> None:
    """Add the pages of baskets and agents to the blueprint."""

    @blp.route("/ui/baskets")
    def baskets() -> flask.Response:
        """Get the page of all baskets and agents."""
        caller = logged_in_caller()
        return render_page(
            sessions,
            flask.g.session,
            "baskets.html",
            baskets=internal_api.get(caller, "/baskets")["baskets"],
            agents=internal_api.get(caller, "/agents"),
        )

    @blp.route("/ui/baskets/<name>")
    def basket(name: str) -> flask.Response:
        """Get the page of one basket: its graph, its agents, its newest runs."""
        caller = logged_in_caller()
        found = internal_api.get(caller, f"/baskets/{segment(name)}")
        return render_page(
            sessions,
            flask.g.session,
            "basket.html",
            basket=found,
            graph=draw(found),
            runs=internal_api.get(caller, "/executions", [("basket", name), ("limit", "10")])["executions"],
        )

    @blp.route("/ui/agents/<name>")
    def agent(name: str) -> flask.Response:
        """Get the page of one agent: its schemas, its sample, how long it takes."""
        found = internal_api.get(logged_in_caller(), f"/agents/{segment(name)}")
        return render_page(sessions, flask.g.session, "agent.html", agent=found)

    _add_run_form(blp, sessions)


def _add_run_form(blp: flask.Blueprint, sessions: Sessions) -> None:
    @blp.route("/ui/baskets/<name>/run")
    def show_run_form(name: str) -> flask.Response:
        """Get the form by which a basket is run, with the sample, or with the input of the run ``?from=``."""
        caller = logged_in_caller()
        basket = internal_api.get(caller, f"/baskets/{segment(name)}")
        form = _form(caller, basket, _earlier_input(caller))
        return _form_page(sessions, basket, form, is_json=request.args.get("as") == "json")

    @blp.route("/ui/baskets/<name>/run", methods=["POST"])
    def run_basket(name: str) -> flask.Response:
        """Run a basket with what was sent with the form; a form that is sent twice makes one run."""
        caller = logged_in_caller()
        basket = internal_api.get(caller, f"/baskets/{segment(name)}")
        form, sent = _form(caller, basket, _earlier_input(caller)), request.form
        is_json = "json" in sent
        try:
            given = parse_json(sent["json"]) if is_json else parse_fields(form.fields, sent)
            reply = internal_api.send(
                caller,
                "POST",
                "/run-basket",
                body={"basket_name": name, "input_data": given},
                HTTP_IDEMPOTENCY_KEY=idempotency_key(),
            )
        except (InvalidField, ApiRefused) as error:
            if isinstance(error, ApiRefused) and error.status not in _FAULTS_OF_INPUT:
                raise
            filled = RunForm([_as_sent(each, sent) for each in form.fields], sent.get("json", form.json))
            return _form_page(sessions, basket, filled, is_json=is_json, error=str(error))
        return redirect(f"/ui/runs/{reply['execution_id']}")


def _source() -> str:
    """Return the id of the run whose input the form began with; empty if it began with the sample."""
    source = request.values.get("from", "")
    return source if EXECUTION_ID_PATTERN.fullmatch(source) else ""


def _earlier_input(caller: Caller) -> Any:
    return internal_api.get_if_shown(caller, f"/executions/{_source()}/input") if _source() else None


def _form(caller: Caller, basket: Mapping[str, Any], given: Mapping[str, Any] | None) -> RunForm:
    """Return the form of a basket, filled in with ``given``, or with the sample of its first agent."""
    firsts = [agent for _, agent, needs in steps_of(basket) if not needs]
    specs = [spec for name in firsts if (spec := internal_api.get_if_shown(caller, f"/agents/{segment(name)}"))]
    samples = [spec["sample_input"] for spec in specs if spec.get("sample_input")]
    value = given if given is not None else next(iter(samples), {})
    return RunForm(fields_of([spec.get("input_schema") or {} for spec in specs], value), to_json(value))


def _as_sent(field: FormField, sent: Mapping[str, str]) -> FormField:
    return FormField(
        field.name, field.kind, field.is_required, field.description, field.choices, sent.get(field.control, "")
    )


def _form_page(
    sessions: Sessions, basket: Mapping[str, Any], form: RunForm, *, is_json: bool, error: str | None = None
) -> flask.Response:
    return render_page(
        sessions,
        flask.g.session,
        "run_form.html",
        status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        basket=basket,
        form=form,
        is_json=is_json,
        error=error,
        source=_source(),
        source_query=f"&from={_source()}" if _source() else "",
        form_key=secrets.token_hex(16),
    )
