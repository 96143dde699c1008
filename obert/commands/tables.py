"""Tables, figures, leaderboard and report of an experiment, from its records or from a tracking server alone."""

import logging
import re
import tempfile
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from obert.experiment.folders import runs_folder, sweep_folder, tables_folder
from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.foundation.passwords import masked
from obert.records.record import MODEL, read_records
from obert.report.built import build_table
from obert.report.files import table_files
from obert.report.report_page import report_page
from obert.tables import Note, Results
from obert.tables._chance import RULE
from obert.tables._published import load_published
from obert.tables.leaderboard import Leaderboard
from obert.tracking import fetch, store

REPORT = "report.html"
FIRST = (  # the order of the report; the others follow by name
    "leaderboard_over_tasks", "leaderboard", "checklist", "pareto_sparsity", "pareto_speed", "operating_points",
    "training_curves", "layer_sparsity", "latency", "table1",
)  # fmt: skip
SUMMARY = ("task", "sparsity %", "method", "recipe", "score", "chance", "recovery %")
SUMMARY_LEGEND = f"Scores are in percent: mean ± standard deviation over n seeds. {RULE}"
log = logging.getLogger(__name__)


def load_results(plan: Plan, config_path: Path | str, folder: Path, sweeps_folder: Path | None = None) -> Results:
    """The planned runs' records below a folder.

    Records of runs that the configuration does not ask for (any more) are left out, and those made with another
    specification than it now asks for are marked; both are said in `warnings`.

    Args:
        sweeps_folder: where the experiment's sweeps are, by default where they are written.

    Raises:
        UserError: a damaged record, two of one run that differ, or another experiment's sweep.
    """
    experiment, planned = plan.experiment, tuple(plan.runs)
    found = [record for record in read_records(folder) if record.experiment == experiment.name]
    records = [record for record in found if record.key in plan.runs]
    outdated = [str(record.key.path) for record in records if record.spec_hash != plan[record.key].specification_hash]
    missing = set(planned) - {record.key for record in records}
    warnings = []
    if len(found) > len(records):
        left_out = len(found) - len(records)
        warnings.append(Note(f"Records left out because the configuration no longer plans their runs: {left_out}."))
    if outdated:
        text = (
            f"Records made with another specification than the configuration now has: {len(outdated)}. The same "
            "snakemake command makes them again:"
        )
        warnings.append(Note(text, tuple(outdated)))
    return Results(
        experiment=experiment.name,
        description=experiment.description,
        config=Path(config_path).as_posix(),
        records=tuple(records),
        planned=planned,
        published=load_published(),
        folder=folder,
        warnings=tuple(warnings),
        origins={run.key: run.sources[MODEL].key for run in plan if MODEL in run.sources},
        sweeps={name: _trials((sweeps_folder or sweep_folder("")) / name, experiment) for name in experiment.sweeps},
        other_encoders=frozenset(experiment.models),
        specifications={key: plan[key].specification for key in planned if key in missing},
    )


def _trials(folder: Path, experiment: Experiment) -> pd.DataFrame:
    """The trials of a sweep, none before it has been run."""
    path = folder / store.TRIALS
    if not path.is_file():
        return pd.DataFrame()
    try:
        trials = pd.read_csv(path)
        owner = trials["experiment"][0]
    except (ValueError, KeyError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path} is damaged: {error}. Run the sweep again; its trials are kept.") from None
    if owner != experiment.name:
        raise UserError(f"experiment {experiment.name}, sweeps: '{folder.name}' is a sweep of experiment {owner}")
    return trials


def run(plan: Plan, config_path: Path | str, from_mlflow: str | None = None) -> Path:
    """Make every table that the experiment names. Returns the report's path.

    Args:
        config_path: the experiment's file, as the report's commands name it.
        from_mlflow: tracking server or database to read the runs from, instead of the records.

    Raises:
        UserError: a damaged record, or a tracking store that cannot be used or lacks the experiment.
    """
    experiment = plan.experiment
    if from_mlflow is None:
        return _write(plan, load_results(plan, config_path, runs_folder(experiment)))
    with tempfile.TemporaryDirectory() as folder:
        fetched = fetch.fetch(from_mlflow, experiment.name, Path(folder))
        return _write(plan, load_results(plan, config_path, fetched, fetched / "sweeps"))


def names(plan: Plan) -> list[str]:
    """The tables of an experiment, in the order of the report."""
    chosen = plan.experiment.tables
    if chosen == "all":
        chosen = [name for name in registry.names("tables") if registry.load("tables", name).concerns(plan)]
    by_number = {name: re.sub(r"\d+", lambda digits: digits[0].zfill(3), name) for name in chosen}
    return sorted(chosen, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), by_number[name]))


def _write(plan: Plan, results: Results) -> Path:
    """Build everything first, then write, the report last: a table that fails leaves the old files as they were."""
    for warning in results.warnings:
        log.warning("%s %s", warning.text, ", ".join(warning.lines))
    built = [build_table(name, registry.load("tables", name)(), results) for name in names(plan)]
    target = tables_folder(plan.experiment)
    files = {name: content for table in built for name, content in table_files(table).items()}
    sizes = {table.name: len(files[f"{table.name}.html"]) for table in built}
    files[REPORT] = report_page(results, built, sizes).encode()
    for name, content in files.items():
        with atomic_path(target / name) as temporary:
            temporary.write_bytes(content)
    return target / REPORT


def summary(plan: Plan) -> str:
    """The leaderboard for a terminal, how many runs are missing, and where everything is."""
    experiment, table = plan.experiment, Leaderboard()
    results = load_results(plan, "", runs_folder(experiment))
    content = table.build(results)
    shown = table.display(content)
    lines: list[str] = []
    if content.empty:
        lines.append(f"Experiment '{experiment.name}' has no records yet.")
    else:
        leaderboard = tabulate(shown[list(SUMMARY)], headers="keys", showindex=False, disable_numparse=True)
        lines += [leaderboard, "", SUMMARY_LEGEND]
        if results.missing:
            lines.append(f"{len(results.missing)} of {len(plan)} planned runs have no record yet.")
    places = {
        "report": tables_folder(experiment) / REPORT,
        "tables": tables_folder(experiment),
        "records": runs_folder(experiment),
        "MLflow": masked(experiment.tracking_uri),
    }
    return "\n".join([*lines, "", *(f"{name + ':':9}{place}" for name, place in places.items())])
