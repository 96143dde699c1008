"""Notes of a paper's table: where its numbers are from, at what scale ours are, and which runs are missing."""

import shlex
from collections.abc import Iterable
from dataclasses import replace

from obert.experiment import folders
from obert.experiment.keys import RunKey
from obert.records.record import FILE_NAME, Record
from obert.tables import Note, Results
from obert.tables._measured import scale_text


def as_planned(results: Results) -> Results:
    """The results with a record without scores for each planned run that has none.

    The rule that puts a run into a table then also tells which missing runs belong there.
    """
    missing = tuple(_without_scores(results, key) for key in results.missing)
    return replace(results, records=results.records + missing)


def _without_scores(results: Results, key: RunKey) -> Record:
    layers = _layers(results, key)
    model = {} if layers is None else {"layers": layers}
    return Record.model_construct(experiment=results.experiment, key=key, spec=results.specification(key), model=model)


def _layers(results: Results, key: RunKey) -> int | None:
    """Layers of a model that is not there yet: of what it is made from, or of the task's teacher."""
    for made in results.history(key):
        if made in results.by_key:
            return results.by_key[made].model.get("layers")
        if kept := (results.specification(made).get("recipe") or {}).get("layers"):
            return len(kept)
    dense = results.dense(key.task)
    return None if dense is None else dense.model.get("layers")


def paper_notes(
    results: Results, source: str, keys: Iterable[RunKey], needs: str, model: str | None = None
) -> tuple[Note, ...]:
    """Source of the published numbers, scale of the measured ones, and what is missing.

    Args:
        source: the paper that the published numbers are from, by its name in configs/published.yaml.
        keys: the planned runs that belong here.
        needs: what runs belong here, in words.
        model: what the published numbers are of, if not the paper's main model.
    """
    paper = results.published.papers[source]
    notes = [Note(f"Published: {paper.title}. {paper.reference}; {model or paper.model}.")]
    if scale_text(results):
        notes.append(Note(f"Measured with {scale_text(results)}. This is another scale, unless it is the paper's."))
    return (*notes, *_missing_notes(results, tuple(dict.fromkeys(keys)), needs))


def _missing_notes(results: Results, keys: tuple[RunKey, ...], needs: str) -> tuple[Note, ...]:
    if not keys:
        return (Note(f"{results.config} plans no run that belongs here. Needed: {needs}."),)
    missing = [key for key in keys if key not in results.by_key]
    if not missing:
        return ()
    files = [(folders.RESULTS / "runs" / results.experiment / key.path / FILE_NAME).as_posix() for key in missing]
    # --configfile comes last, as it takes every path after it
    command = [
        "snakemake --cores all \\",
        *(f"  {file} \\" for file in files),
        f"  --configfile {shlex.quote(results.config)}",
    ]
    many = f"{len(missing)} of the {len(keys)} planned runs that belong here are"
    return (Note(f"{many} missing. To make them:", tuple(command)),)
