"""`obert compress`: at which sparsity does a model lose so many points, and how fast is it then?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from obert.commands import prepare
from obert.compression.answer import answer
from obert.compression.decision import decide, decided
from obert.compression.question import Question
from obert.compression.runs import Runs
from obert.compression.trials import Trials, as_file, make, results_of
from obert.experiment import folders
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.recipes import RECIPES
from obert.foundation import registry
from obert.foundation.files import check_place, write_text
from obert.foundation.locks import is_held, locked

CONFIGS = Path("configs")


def run(question: Question) -> str:
    """Search on held-out training data, then make the answer's runs and files.

    Returns:
        How far, how accurate, how fast, and where everything is.

    Raises:
        UserError: a mistake in the question, too little time, a run that failed, or no sparsity that is good enough.
    """
    from obert.deployment.latency import require_cores

    require_cores(question.threads, "--threads")  # of the timing, which comes last of all
    outside = registry.folder()
    recipe = (RECIPES if outside is None else outside / registry.RECIPES) / f"{question.name}.yaml"
    final = CONFIGS / f"{question.name}.yaml"
    folder = folders.RESULTS / "compress" / question.name
    files = (recipe, final)
    for path in files:
        check_place(path, f"--name {question.name}")
    lock = folder / ".lock"
    if is_held(lock):
        print(f"another process makes '{question.name}' already: waiting", flush=True)
    with locked(lock):
        decision = decided(question, folder, files)  # before prepare writes anything of an experiment of that name
        prepare.run(Plan.of(question.dense(), "the command line"))
        decision = decision or decide(question, folder)
        if not recipe.exists():
            write_text(recipe, decision.recipe)
        search = Trials(decision, folder)
        sparsity = search.run()
        write_text(final, as_file(question.final([sparsity], decision.train_examples)))
        return _finish(final, folder, search)


def _finish(config: Path, folder: Path, search: Trials) -> str:
    plan = Plan.load(config)
    prepare.run(plan)
    runs = Runs(plan)
    for run in _in_order(plan):
        make(runs, run)
    found = answer(results_of(plan, config), search.question, search.told(), search.judged)
    write_text(folder / "answer.txt", found + "\n")
    return found


def _in_order(plan: Plan) -> Iterable[PlannedRun]:
    """The dense model, the pruned ones, then what is exported and timed of them."""
    return (run for stage in ("teacher", "downstream", "export", "benchmark") for run in plan.of_stage(stage))
