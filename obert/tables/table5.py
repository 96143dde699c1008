"""Table 5 of the oBERT paper: pruned without distillation, against PLATON."""

from obert.tables import Results
from obert.tables._measured import Group, groups, recipe_of
from obert.tables._paper import LEGEND, PaperTable


class Table5(PaperTable):
    """Column groups are methods; a task's metrics have a row each."""

    table = "5"
    others = True
    needs = "pruned models trained on a task without distillation (downstream or transfer)"
    title = "Table 5 of the oBERT paper, published and measured"
    caption = (
        "Pruning without distillation. Published: as printed in Table 5 of Kurtic et al. 2022 (BERT-base, GLUE), where "
        "PLATON prunes on the task and oBERT upstream, with the best of 1 to 8 epochs of transfer. CoLA, MRPC and "
        f"STS-B have published numbers only, as they are not tasks of this project. {LEGEND}"
    )

    def select(self, results: Results, task: str) -> list[Group]:
        pruned = [group for group in groups(results, task, "transfer", "downstream") if group.sparsity]
        return [g for g in pruned if g.epochs and recipe_of(g.records[0]).get("distillation") is None]
