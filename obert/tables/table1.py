"""Table 1 of the oBERT paper: downstream pruning."""

from obert.tables import Results
from obert.tables._measured import UNSTRUCTURED, Group, groups
from obert.tables._paper import LEGEND, PaperTable


class Table1(PaperTable):
    """Column groups are methods with their epochs."""

    table = "1"
    needs = "single weights pruned on a task (downstream, pattern unstructured)"
    title = "Table 1 of the oBERT paper, published and measured"
    caption = f"Published: means as printed in Table 1 of Kurtic et al. 2022 (BERT-base, full data sets). {LEGEND}"

    def select(self, results: Results, task: str) -> list[Group]:
        pruned = [group for group in groups(results, task, "downstream") if not group.key.origin]
        return [group for group in pruned if group.pattern == UNSTRUCTURED]
