"""The page that goes with a trained model: what it is, how good, how fast, and how to load it.

A model card (Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv 1810.03993) in the Hugging Face Hub's form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from tabulate import tabulate

from obert.data.wheels import PREFIX, find_asset
from obert.foundation.files import write_text
from obert.models.encoders import QUANTIZED
from obert.records.durations import run_seconds
from obert.records.load import busy_before
from obert.records.record import FILE_NAME, MODEL, PREDICTIONS, Record, read_record
from obert.statistics.estimates import bootstrap
from obert.statistics.formatting import format_number
from obert.tasks import Task

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun

NAME = "README.md"
FOLDER = 'folder = "."  # where this card is, or the model\'s name on the Hub'


def write_model_card(planned: PlannedRun) -> Path | None:
    """Write the card of a run's model beside the model; None for a run whose model has no folder.

    A trained model has it from its training on; a benchmark writes it again, with the speeds.

    Raises:
        UserError: the run's record, or that of the trained model, is missing or damaged.
    """
    trained = planned
    while not trained.stage.trains:
        if MODEL not in trained.sources:
            return None
        trained = trained.sources[MODEL]
    timing = read_record(planned.folder / FILE_NAME) if planned.stage.exclusive else None
    path = trained.folder / MODEL / NAME
    write_text(path, model_card(trained, read_record(trained.folder / FILE_NAME), timing))
    return path


def model_card(trained: PlannedRun, record: Record, timing: Record | None = None) -> str:
    """The card of a trained model, in Markdown below YAML.

    Args:
        trained: the run that made it.
        record: of that run.
        timing: the record of a benchmark of the exported model.
    """
    folder = trained.folder / MODEL
    quantized = (folder / QUANTIZED).is_file()
    parts = [
        f"---\n{_data(trained, record, quantized).to_yaml()}\n---",
        f"# {_title(record, quantized)}",
        _origin(trained, record),
        f"## Load it\n\n{_loading(trained.task, quantized)}",
        f"## Scores\n\n{_scores(trained, record)}",
        f"## Size\n\n{_sizes(record, folder)}",
    ]
    if timing is not None:
        parts.append(f"## Speed\n\n{_speeds(timing)}")
    parts.append(f"## How it was made\n\n{_making(record)}")
    return "\n\n".join(parts) + "\n"


def _data(trained: PlannedRun, record: Record, quantized: bool) -> ModelCardData:
    """What the Hub reads: nothing that is not known."""
    base, task, head = trained.model.source, trained.task, trained.task.head
    asset = find_asset(base.removeprefix(PREFIX)) if base.startswith(PREFIX) else None
    loads = head.pipeline is not None and not quantized
    found = [
        EvalResult(
            task_type=head.pipeline or record.key.task,
            dataset_type=record.key.task,
            dataset_name=record.key.task,
            metric_type=name,
            metric_value=score.value,
        )
        for name, score in record.metrics.items()
    ]
    return ModelCardData(
        base_model=base if asset is None and not Path(base).exists() else None,
        license=asset.licence.lower() if asset is not None else None,
        library_name="transformers" if loads else "obert",
        pipeline_tag=head.pipeline,
        tags=["obert", *(["pruned"] if record.key.method else []), *(["8-bit"] if quantized else [])],
        model_name=record.key.path.as_posix() if found else None,
        eval_results=found or None,
        datasets=[task.source]
        if task.source and task.source.count("/") == 1 and not Path(task.source).exists()
        else None,
    )


def _title(record: Record, quantized: bool) -> str:
    key = record.key
    pruned = f"pruned to {100 * key.sparsity:g} % by {key.method}" if key.method and key.sparsity else "dense"
    return f"{_known_as(record.model.get('source', ''))}, {key.task}, {pruned}{', in 8 bits' if quantized else ''}"


def _known_as(source: str) -> str:
    """A source as the world knows it: of a local folder the name alone."""
    if source.startswith(PREFIX):
        return find_asset(source.removeprefix(PREFIX)).requirement
    return Path(source).name if Path(source).expanduser().exists() else source


def _origin(trained: PlannedRun, record: Record) -> str:
    base, data, source = record.model.get("source", ""), record.data, trained.task.source
    licence = find_asset(base.removeprefix(PREFIX)).licence if base.startswith(PREFIX) else "that of the base model"
    splits = ", ".join(f"{count:,} for {name}" for name, count in data.get("splits", {}).items())
    rows = [
        ("Base model", f"{_known_as(base)}, {record.model.get('layers')} layers"),
        ("Data", f"{record.key.task}{f' ({_known_as(source)})' if source else ''}; examples: {splits}"),
        ("Licence", licence),
    ]
    return _listed(rows)


def _loading(task: Task, quantized: bool) -> str:
    name = task.head.pipeline
    if quantized:
        code = f"import obert\n\n{FOLDER}\nmodel, tokenizer = obert.load(folder)"
        return (
            "It rounds weights and activations to 8 bits as it computes, which Transformers alone does not do. This "
            f"needs the package `obert`:\n\n```python\n{code}\n```"
        )
    if name is None:
        auto = task.head.auto_model
        code = f"from transformers import AutoTokenizer, {auto}\n\n{FOLDER}\nmodel = {auto}.from_pretrained(folder)"
        return f"```python\n{code}\ntokenizer = AutoTokenizer.from_pretrained(folder)\n```"
    code = f'from transformers import pipeline\n\n{FOLDER}\nmodel = pipeline("{name}", model=folder)'
    return f"```python\n{code}\n```"


def _scores(trained: PlannedRun, record: Record) -> str:
    rows = [
        (
            name,
            format_number(score.value),
            _interval(trained, record) if name == record.primary_metric else "",
            score.count,
        )
        for name, score in record.metrics.items()
    ]
    return (
        f"On the validation examples, of one run.\n\n{_table(rows, ('metric', 'value', '95 % interval', 'examples'))}"
    )


def _interval(trained: PlannedRun, record: Record) -> str:
    """Of the primary metric over examples; nothing where a run keeps no terms of them."""
    file = trained.folder / PREDICTIONS
    if not file.is_file():
        return ""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    terms = [line["terms"] if "terms" in line else [line.get("score")] for line in lines]
    values = [row for row in terms if row != [None]]  # of what the metric does not count
    if len(values) < 2:
        return ""
    [found] = bootstrap([[pd.DataFrame(values)]], trained.task.from_terms)
    interval = found.interval()
    return f"{format_number(interval.low)} to {format_number(interval.high)}"


def _sizes(record: Record, folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    rows = [("Parameters", f"{record.model.get('parameters', 0):,}"), ("Weights on disk", f"{total / 1e6:,.1f} MB")]
    listed = _listed(rows)
    if record.sparsity is None or record.sparsity.parts is None:
        return listed
    parts = [
        (name, f"{part.size:,}", f"{100 * part.zeros / part.size:.2f} %")
        for name, part in record.sparsity.parts.items()
    ]
    whole = f"Of all weight matrices {100 * (record.sparsity.whole_model or 0):.2f} % of the weights are zero."
    return f"{listed}\n\n{_table(parts, ('part', 'weights', 'zeros'))}\n\n{whole}"


def _speeds(timing: Record) -> str:
    """A row for each engine in the first scenario, with the machine."""
    rows = []
    for engine, said in timing.details.get("engines", {}).items():
        latency = timing.metrics.get(f"{engine}_latency_p50_ms")
        if latency is None:
            continue
        speedup, over = timing.metrics.get(f"{engine}_speedup"), ""
        if speedup is not None:
            low, high = said["speedup_interval"]
            over = f"{speedup.value:.2f} [{low:.2f}, {high:.2f}]"
        rows.append((engine, f"{latency.value:.2f}", over))
    machine, scenarios = timing.environment, timing.details.get("scenarios", [{}])
    setting = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in scenarios[0].items())
    flags = ", ".join(machine.get("isa_flags", []))
    in_use = busy_before(timing)
    note = "" if in_use is None else f" The machine was not idle ({in_use:.1f} cores in use): take them with care."
    columns = ("engine", "median latency of a batch, ms", "speed-up over dense float32 in ONNX Runtime")
    return f"{setting}. {machine.get('cpu')}, {machine.get('cores')} cores ({flags}).{note}\n\n{_table(rows, columns)}"


def _making(record: Record) -> str:
    key, environment = record.key, record.environment
    versions = environment.get("packages", {})
    commit = environment.get("git_commit")
    minutes = run_seconds(record.wall_time_seconds, record.costs) / 60
    rows = [
        ("Command", f"`python -m obert {key.stage} {key.arguments}`, experiment {record.experiment}"),
        ("Recipe", key.recipe),
        *([("Method", key.method)] if key.method else []),
        ("Seed", key.seed),
        (
            "Code",
            f"obert, commit {commit}{', with changes' if environment.get('git_dirty') else ''}" if commit else "obert",
        ),
        ("Versions", ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)),
        ("Time", f"{minutes:.1f} minutes on {environment.get('gpu') or environment.get('cpu')}"),
    ]
    return _listed(rows)


def _listed(rows: list[tuple[str, object]]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in rows)


def _table(rows: list[tuple], columns: tuple[str, ...]) -> str:
    return tabulate(rows, columns, tablefmt="github", disable_numparse=True)
