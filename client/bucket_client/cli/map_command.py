"""``bucket map``: runs a basket once for each line of a file; killed at any point, the same command goes on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from bucket_client import batches
from bucket_client.cli.error_report import FAILED, Interrupted
from bucket_client.cli.map_files import InputLine, ResultFile, count_inputs, is_csv, read_inputs
from bucket_client.cli.run_commands import dry_run_option, options_of, submit_options
from bucket_client.cli.session import Session, SessionCommand, complete_basket, pass_session
from bucket_client.errors import ServerFault, StateFileError, Unavailable
from bucket_client.mapping import MapResult
from bucket_client.submits import SubmitOptions, item_of

if TYPE_CHECKING:
    from bucket_client.cli.progress_bars import MapBar

_GO_ON = "the same command goes on where it stopped"


@dataclass(frozen=True, slots=True)
class _Map:
    """One map: a basket, its files, and what is said with each submit."""

    session: Session
    basket: str
    inputs: Path
    results: Path
    state: Path
    concurrency: int
    options: SubmitOptions


@click.command("map", cls=SessionCommand)
@click.argument("basket", shell_complete=complete_basket)
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    "results",
    required=True,
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the results go: a name that ends in .jsonl or .csv.",
)
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What was submitted and what is done; by default OUT.state.",
)
@click.option("--overwrite", is_flag=True, help="Delete OUT and its state first, and begin anew.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=1000, show_default=True, help="How many runs at a time."
)
@submit_options
@dry_run_option
@pass_session
@click.pass_context
def map_file(
    context: click.Context,
    session: Session,
    /,
    basket: str,
    file: Path,
    *,
    results: Path,
    state: Path | None,
    overwrite: bool,
    concurrency: int,
    dry_run: bool,
    **more: Any,
) -> None:
    """Run BASKET once for each line of FILE, and write a line to OUT for each.

    FILE is .jsonl, with an object on each line, or .csv: its first row names the keys, a cell that is JSON is taken as
    such, else as text. Blank lines are skipped.

    A line of OUT is {line, execution_id, status, result, error}, in the order in which the runs end. `line` is the
    line of FILE where the input begins, from 1. `status` is that of the run; `invalid` for a line that is no input;
    `refused` if Bucket did not take it. In CSV, result and error are cells with JSON.

    If the command is stopped or killed, the same command goes on where it stopped, within a day: nothing runs twice,
    and each line is in OUT once. FILE must stay as it was; lines may be added at its end.

    With --json it prints one document at the end: the counts. The exit code is 1 if a line did not complete.
    """
    for path in (file, results):
        is_csv(path)  # refuses a name that says nothing
    state = state or results.with_name(f"{results.name}.state")
    job = _Map(session, basket, file, results, state, concurrency, options_of(**more))
    _check_files(job, overwrite=overwrite)
    if dry_run:
        _preview(job, begins_anew=overwrite)
        return
    if overwrite:
        _delete_old(job)
    os.close(os.open(results, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
    out = ResultFile(results)
    total = count_inputs(file)
    done_before = _run(job, out, total)
    if len(out.lines) < total:
        raise StateFileError(
            f"{total - len(out.lines)} results are missing in {results}, but {state} says that they were written: "
            "was it changed? --overwrite begins anew"
        )
    _print_end(session, out, total, done_before)
    if out.not_completed:
        context.exit(FAILED)


def _run(job: _Map, out: ResultFile, total: int) -> int:
    """Run what is not done, and return how many lines were done before."""
    done_before = 0
    with ExitStack() as stack:
        stack.callback(out.close)
        bucket = stack.enter_context(job.session.open_bucket())
        bar: MapBar | None = None

        def inputs() -> Iterator[InputLine]:
            # The client asks for the first input once it has locked the state file: now OUT is ours alone.
            nonlocal bar, done_before
            out.open_and_repair()
            done_before = len(out.lines)
            if job.session.output.draws_progress and done_before < total:
                from bucket_client.cli.progress_bars import map_bar  # here, because rich takes a tenth of a second

                bar = stack.enter_context(map_bar(job.session.output, total, done_before))
            yield from read_inputs(job.inputs)

        results = bucket.map(job.basket, inputs(), concurrency=job.concurrency, state=job.state, **job.options)
        try:
            for result in results:
                out.add(_record_of(result))
                if bar is not None:
                    bar.show(len(out.lines), out.not_completed)
        except KeyboardInterrupt:
            raise Interrupted(f"{len(out.lines)} of {total} lines are done; {_GO_ON}") from None
        except (Unavailable, ServerFault, OSError) as error:
            error.add_note(_GO_ON)
            raise
    return done_before


def _record_of(result: MapResult) -> dict[str, Any]:
    given, execution, error = cast("InputLine", result.input), result.execution, result.error
    record: dict[str, Any] = {"line": given.line, "execution_id": None, "result": None}
    if given.fault is not None:
        return record | {"status": "invalid", "error": {"error_code": "invalid_json", "message": given.fault}}
    if execution is not None:
        ended = {"execution_id": execution.execution_id, "status": execution.status}
        return record | ended | {"result": execution.result, "error": execution.error}
    refusal = {"error_code": error.error_code if error else None, "message": str(error)}
    return record | {"status": "refused", "error": refusal}


def _check_files(job: _Map, *, overwrite: bool) -> None:
    """Raise an error if a file would be overwritten that must not be, or if results are missing."""
    paths = [job.inputs.resolve(), job.results.resolve(), job.state.resolve()]
    if len(set(paths)) < len(paths):
        raise click.ClickException("FILE, OUT and the state must be three files")
    if overwrite:
        return
    has_results = job.results.exists() and job.results.stat().st_size > 0
    if has_results and not job.state.exists():
        raise click.ClickException(
            f"{job.results} exists, and there is no {job.state} to go on with: "
            "give another name with -o, or --overwrite"
        )
    if job.state.exists() and not job.results.exists():
        raise click.ClickException(
            f"{job.state} exists, but {job.results} does not: its results are gone; --overwrite begins anew"
        )


def _delete_old(job: _Map) -> None:
    """Delete the results and the state of an earlier map. Raises StateFileError while it runs."""
    if job.state.exists():
        with job.state.open("rb") as state:
            try:
                fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateFileError(f"another map uses {job.state}: let it end") from None
            job.results.unlink(missing_ok=True)
            job.state.unlink()
    job.results.unlink(missing_ok=True)


def _print_end(session: Session, out: ResultFile, total: int, done_before: int) -> None:
    completed = total - out.not_completed
    if session.json:
        counts = {"total": total, "completed": completed, "not_completed": out.not_completed, "before": done_before}
        session.output.json(counts | {"output": str(out.path)})
        return
    before = "everything was done before: " if done_before == total else ""
    session.output.note(f"{before}{completed} of {total} lines completed; the results are in {out.path}")


def _preview(job: _Map, *, begins_anew: bool) -> None:
    """Print what would be sent: how many lines, and the first batch's first item."""
    out = ResultFile(job.results)
    if job.results.exists() and not begins_anew:
        out.scan()
    total = invalid = 0
    item: dict[str, Any] | None = None
    for given in read_inputs(job.inputs):
        total += 1
        invalid += given.fault is not None
        if item is None and given.fault is None and given.line not in out.lines:
            item = item_of(job.basket, job.options) | {"input_data": given}
    document = {"method": "POST", "path": "/run-basket/batch", "lines": total, "invalid": invalid}
    document |= {"done_before": len(out.lines), "first_item": item}
    job.session.output.json(document)
    job.session.output.note(f"dry run: nothing was sent; the batches have at most {batches.ITEMS_MAX} items each")
