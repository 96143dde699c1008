"""Table 7 of the oBERT paper: BERT-large."""

from obert.tables import Results
from obert.tables._measured import Group, groups
from obert.tables._paper import LEGEND, PaperTable

LAYERS = 24


class Table7(PaperTable):
    """Column groups are methods; a task's metrics have a row each."""

    table = "7"
    others = True
    model = "BERT-large, 24 layers"
    needs = f"pruned models of at least {LAYERS} layers on a task (downstream or transfer)"
    title = "Table 7 of the oBERT paper, published and measured"
    caption = f"Published: as printed in Table 7 of Kurtic et al. 2022 (BERT-large, SQuAD v1.1). {LEGEND}"

    def select(self, results: Results, task: str) -> list[Group]:
        pruned = [group for group in groups(results, task, "transfer", "downstream") if group.sparsity]
        return [group for group in pruned if (group.layers or 0) >= LAYERS]
