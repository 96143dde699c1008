"""What is decided before the search, once: the recipe, which is a file of its own, and how many examples are used."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from obert.compression.budget import fit
from obert.compression.draft import WHENCE, Draft, start_of
from obert.compression.question import HELD_OUT, Question
from obert.experiment.plan import Plan
from obert.experiment.strict import Strict
from obert.foundation.errors import UserError
from obert.foundation.files import write_text

FILE_NAME = "decision.json"
HEADER = "Written by `obert compress` for {task}. "


class Decision(Strict):
    """How a question is answered."""

    question: Question
    train_examples: int | None = Field(gt=0, description="of the final models, so that all fits; None for all")
    search_examples: int = Field(gt=0, description="of the search, those that judge it included")
    held_out: float = Field(gt=0, lt=1, description="share of the search's examples that judge it")
    recipe: str = Field(description="its file, as it was written")


def decided(question: Question, folder: Path, files: tuple[Path, Path]) -> Decision | None:
    """The decision that was made before; None if the name is free.

    Args:
        folder: where it is kept.
        files: the recipe's, and that of the experiment that is to answer.

    Raises:
        UserError: another question has that name, a file is there already, or the decision is damaged.
    """
    kept, ours = folder / FILE_NAME, f"{folder}, {files[0]} and {files[1]}"
    if kept.is_file():
        try:
            decision = Decision.model_validate_json(kept.read_bytes())
        except ValueError:
            raise UserError(f"{kept} is damaged: delete {ours}, and run the command again") from None
        if decision.question != question:
            raise UserError(f"{folder} answers another question. Give another --name, or delete {ours}")
        return decision
    for path in files:
        if path.exists():
            raise UserError(f"{path} is there already, and is not overwritten. Give another --name")
    return None


def decide(question: Question, folder: Path) -> Decision:
    """A new decision, for which the model is timed, kept in a folder. Raises UserError for too few minutes."""
    dense, search = (
        Plan.of(each, "the command line").teacher(question.task) for each in (question.dense(), question.searched())
    )
    search.task.load()  # a few examples may leave none to judge by
    print(f"timing {dense.model.source} on {question.task}", flush=True)
    network, data = start_of(dense)
    features, examples = len(data.features), len(data.examples)
    draft = Draft.by_guidelines(dense, question.method, network.config.num_hidden_layers, features)
    fitted = fit(draft, draft.measure(network, data), question.minutes, HELD_OUT)
    used = None if fitted.share == 1 else int(fitted.share * examples)
    if used is not None:
        print(f"{used:,} of {examples:,} training examples are used: all is to fit into {question.minutes:g} minutes")
    trained = (1 - HELD_OUT) * (used or examples)
    searched = min(examples, int(trained + max(HELD_OUT / (1 - HELD_OUT) * trained, fitted.judged(question.minutes))))
    share = round(1 - trained / searched, 6)
    of_search = Plan.of(question.searched(searched, share), "the command line").teacher(question.task).task.load()
    print(f"the search is judged by {len(of_search['validation']):,} other training examples")
    draft = fitted.draft.drawing_from(len(of_search["train"]))
    recipe = draft.file(HEADER.format(task=question.task) + WHENCE)
    decision = Decision(question=question, train_examples=used, search_examples=searched, held_out=share, recipe=recipe)
    write_text(folder / FILE_NAME, decision.model_dump_json(indent=1) + "\n")
    return decision
