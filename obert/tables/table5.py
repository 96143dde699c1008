"""Table 5 of the oBERT paper: pruned without distillation, against PLATON."""

from obert.tables import Note, Results
from obert.tables._measured import Group, groups, recipe_of
from obert.tables._paper import LEGEND, PaperTable
from obert.tables._published import Number

SWEEP, SEARCHED = "paper_transfer", "training.epochs"
RECIPES, MODEL = "transfer_alone_", ("upstream_obert_3_epochs",)  # what the sweep chooses from


class Table5(PaperTable):
    """Column groups are methods; a task's metrics have a row each."""

    table = "5"
    others = True
    needs = "pruned models trained on a task without distillation (downstream or transfer)"
    title = "Table 5 of the oBERT paper, published and measured"
    caption = (
        "Pruning without distillation. Published: as printed in Table 5 of Kurtic et al. 2022 (BERT-base, GLUE), where "
        "PLATON is quoted and prunes on the task, and oBERT upstream, with the best of 1 to 8 epochs of transfer and "
        "early stopping; on which examples they are chosen is not said. Measured beside it: the transfer with as many "
        f"epochs as are best for the task in the sweep {SWEEP}, on training examples that were held out. The other "
        f"numbers of epochs have columns of their own. {LEGEND}"
    )

    def select(self, results: Results, task: str) -> list[Group]:
        pruned = [group for group in groups(results, task, "transfer", "downstream") if group.sparsity]
        return [g for g in pruned if g.epochs and recipe_of(g.records[0]).get("distillation") is None]

    def reproduced(self, results: Results, group: Group, numbers: tuple[Number, ...]) -> Number | None:
        """oBERT's number, for the transfer with the epochs that the sweep chose on the task."""
        recipe, *origin = group.key.lineage
        is_searched = recipe.startswith(RECIPES) and tuple(origin) == MODEL
        if not is_searched or group.epochs != chosen_epochs(results, group.key.task):
            return super().reproduced(results, group, numbers)
        return next(n for n in numbers if n.method == "obert")

    def notes(self, results: Results) -> tuple[Note, ...]:
        if SWEEP not in results.sweeps:
            return super().notes(results)
        chosen = {task: chosen_epochs(results, task) for task in self.tasks(results)}
        found = ", ".join(f"{task} {epochs:g}" for task, epochs in chosen.items() if epochs is not None)
        command = f"python -m obert sweep --config configs/sweeps/{SWEEP}.yaml"
        missing = Note(
            f"The sweep {SWEEP}, which chooses the epochs of a task, has no trials yet. To run it:", (command,)
        )
        return (*super().notes(results), Note(f"Epochs that the sweep {SWEEP} chose: {found}.") if found else missing)


def chosen_epochs(results: Results, task: str) -> float | None:
    """The number of epochs with the highest score on a task's held-out training examples, None without trials."""
    trials = results.sweeps.get(SWEEP)
    if trials is None or trials.empty:
        return None
    complete = trials[(trials["state"] == "complete") & (trials["task"] == task)]
    return None if complete.empty else float(complete.groupby(SEARCHED)["score"].mean().idxmax())
