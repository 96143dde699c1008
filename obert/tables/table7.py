"""Table 7 of the oBERT paper: BERT-large."""

from obert.tables import Results
from obert.tables._measured import UNSTRUCTURED, Group, groups
from obert.tables._paper import LEGEND, PaperTable

LAYERS, TASK = 24, "squad_bert_large"


class Table7(PaperTable):
    """Column groups are methods; a task's metrics have a row each."""

    table = "7"
    others = True
    model = "BERT-large, 24 layers"
    needs = f"single weights of models of at least {LAYERS} layers pruned (downstream or transfer)"
    title = "Table 7 of the oBERT paper, published and measured"
    caption = (
        "Published: as printed in Table 7 of Kurtic et al. 2022 (BERT-large, SQuAD v1.1, the task "
        f"{TASK} of configs/paper.yaml), which quotes Prune OFA. {LEGEND}"
    )

    def select(self, results: Results, task: str) -> list[Group]:
        pruned = [group for group in groups(results, task, "transfer", "downstream") if group.sparsity]
        is_large = task == TASK  # whose layers no record may tell yet
        return [g for g in pruned if (is_large or (g.layers or 0) >= LAYERS) and g.pattern == UNSTRUCTURED]
