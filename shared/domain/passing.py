"""How data passes from step to step: what each strategy gives a step as its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.domain.basket import Basket


def given_to(
    basket: Basket,
    step_id: str,
    run_input: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Answer the input of ``step_id``: the output of the step before it, or the run's input for the first.

    A ``required`` field that the previous output lacks is filled from the run's input, so that a chain need not
    carry along what only a later agent wants.
    """
    needs = basket.step(step_id).needs
    if not needs:
        return dict(run_input)
    given: dict[str, Any] = {}
    for need in needs:
        given.update(outputs[need])
    given.update({field: run_input[field] for field in required if field not in given and field in run_input})
    return given
