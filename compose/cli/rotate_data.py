"""``bucketd keys rotate-data``: seals again what older encryption keys have sealed, while the stack runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from compose.cli import console
from compose.operator_error import OperatorError
from compose.stack_connection import open_services
from shared.bootstrap import Services
from shared.errors import BucketError
from shared.store.key_rotation import MongoKeyRotation

_FAILURES_SHOWN = 5


@click.command("rotate-data")
@console.data_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def rotate_data(data: Path, *, as_json: bool) -> None:
    """Seal stored content again with the first key of BUCKET_ENCRYPTION_KEYS.

    First start every process with the new key in front and the old ones behind it. This may be interrupted and
    started again, and says which keys may be removed afterwards.
    """
    try:
        with open_services(data) as services:
            result = _rotate(services, as_json=as_json)
    except OperatorError as error:
        console.print_failure("rotate-data", error)
        sys.exit(1)
    except BucketError as error:
        console.print_failure("rotate-data", OperatorError(error.message, fix="mend that, then start it again"))
        sys.exit(1)
    if as_json:
        console.say(json.dumps(result))
    sys.exit(1 if result["left"] else 0)


def _rotate(services: Services, *, as_json: bool) -> dict[str, object]:
    sealer = services.sealer
    if sealer.key_id is None:
        raise OperatorError(
            "BUCKET_ENCRYPTION_KEYS is not set here", fix="set it as the stack has it: the new key first, then the old"
        )
    rotation = MongoKeyRotation(services.database, sealer)
    resealed, after = 0, ""
    failures: dict[str, str] = {}
    while True:
        batch = rotation.rotate_batch(after)
        resealed, failures, after = resealed + batch.resealed, failures | dict(batch.failures), batch.after
        if not after:
            break
        if not as_json:
            console.say(f"  {resealed} runs sealed again")
    resealed += rotation.rotate_memories()
    in_use = rotation.keys_in_use()
    left = sum(count for key_id, count in in_use.items() if key_id != sealer.key_id)
    unused = [key_id for key_id in sealer.key_ids if key_id not in in_use and key_id != sealer.key_id]
    if not as_json:
        _print_result(sealer.key_id, resealed, left, unused, failures)
    return {"key": sealer.key_id, "resealed": resealed, "left": left, "unused_keys": unused, "failures": failures}


def _print_result(key_id: str, resealed: int, left: int, unused: list[str], failures: dict[str, str]) -> None:
    console.print_ok("rotate-data", f"{resealed} sealed again by {key_id}, {left} left")
    for execution_id, reason in list(failures.items())[:_FAILURES_SHOWN]:
        console.print_warning(f"{execution_id}: {reason}")
    if left:
        console.print_warning("older keys are still needed: keep them, and start this again")
    elif unused:
        console.say(
            f"Nothing is sealed by {', '.join(unused)} any more. Once every process has been started with {key_id} in "
            "front, remove it from BUCKET_ENCRYPTION_KEYS; backups that are older still need it."
        )
