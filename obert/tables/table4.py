"""Table 4 of the oBERT paper: one-shot pruning in the N:M pattern of GPUs."""

from obert.tables import Results
from obert.tables._measured import Group, groups
from obert.tables._paper import LEGEND, PaperTable


class Table4(PaperTable):
    """Column groups are methods; a task's metrics have a row each."""

    table = "4"
    others = True
    needs = "pruning on a task (downstream) in an N:M pattern such as 2:4"
    title = "Table 4 of the oBERT paper, published and measured"
    caption = (
        "N:M pruning of the fine-tuned model. Published: as printed in Table 4 of Kurtic et al. 2022 (BERT-base, "
        f"SQuAD v1.1, 2:4) and, with one epoch of fine-tuning, in its section 4.4. {LEGEND}"
    )

    def select(self, results: Results, task: str) -> list[Group]:
        return [group for group in groups(results, task, "downstream") if ":" in group.pattern]
