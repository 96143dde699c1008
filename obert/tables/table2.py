"""Table 2 of the oBERT paper: models pruned upstream, transferred to tasks."""

from obert.tables import Results
from obert.tables._measured import Group, groups
from obert.tables._paper import LEGEND, PaperTable


class Table2(PaperTable):
    """Column groups are methods; downstream pruning with as many epochs on the task stands beside them."""

    table = "2"
    needs = "models pruned upstream and fine-tuned on a task with their zeros held (transfer)"
    title = "Table 2 of the oBERT paper, published and measured"
    caption = (
        "Sparse transfer. Published: means as printed in Table 2 of Kurtic et al. 2022 (BERT-base, full data sets). "
        f"{LEGEND} Sparsity 0: the dense upstream model, transferred alike. Downstream pruning is listed where it "
        "trains for as many epochs on the task as the transfer; what the upstream run costs comes on top."
    )

    def select(self, results: Results, task: str) -> list[Group]:
        transferred = [g for g in groups(results, task, "transfer") if not g.drops_layers(results)]
        epochs = {group.epochs for group in transferred}
        pruned = [g for g in groups(results, task, "downstream") if not g.key.origin]
        return transferred + [group for group in pruned if group.epochs in epochs]
