"""`obert card`: write the model cards of finished runs."""

from collections.abc import Mapping
from typing import Any

from obert.experiment.plan import Plan
from obert.foundation.errors import UserError
from obert.records.record import FILE_NAME
from obert.report.model_card import write_model_card


def run(plan: Plan, chosen: Mapping[str, Any]) -> str:
    """Write the cards of all finished runs, or of those that are named, benchmarks last, whose speeds are in them.

    Returns:
        The files that were written.

    Raises:
        UserError: no such run has been made, or its record is damaged.
    """
    found = plan.chosen(chosen)
    made = [run for run in found if (run.folder / FILE_NAME).is_file()]
    written = [path for run in made if run.stage.trains or run.stage.exclusive if (path := write_model_card(run))]
    if not written:
        raise UserError(f"{plan.where}: no finished run of these {len(found)} has a model; run them first")
    return "\n".join(dict.fromkeys(map(str, written)))
