"""Table 2 of the oBERT paper: models pruned upstream, transferred to tasks."""

from obert.experiment.schema import PRETRAINED
from obert.tables import Results
from obert.tables._measured import Group, groups, recipe_of
from obert.tables._paper import LEGEND, PaperTable


class Table2(PaperTable):
    """Column groups are methods; downstream pruning with as many epochs on the task stands beside them."""

    table = "2"
    needs = "models pruned upstream and fine-tuned on a task with their zeros held and distillation (transfer)"
    title = "Table 2 of the oBERT paper, published and measured"
    caption = (
        "Sparse transfer with distillation (Table 5: without). Published: means as printed in Table 2 of Kurtic et al. "
        f"2022 (BERT-base, full data sets). {LEGEND} Sparsity 0: the dense upstream model, transferred in the "
        "same way. Downstream pruning is listed if it trains for as many epochs on the task as the transfer does, on "
        "top of its upstream run."
    )

    def select(self, results: Results, task: str) -> list[Group]:
        transferred = [g for g in groups(results, task, "transfer") if recipe_of(g.records[0]).get("distillation")]
        transferred = [g for g in transferred if PRETRAINED not in g.key.origin and not g.drops_layers(results)]
        epochs = {group.epochs for group in transferred}
        pruned = [g for g in groups(results, task, "downstream") if not g.key.origin]
        return transferred + [group for group in pruned if group.epochs in epochs]
