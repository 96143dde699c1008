"""Table 14 of the oBERT paper: the exact match of Table 3's models."""

from obert.tables._paper import LEGEND
from obert.tables.table3 import Table3


class Table14(Table3):
    """As Table 3; tasks with one metric have no rows."""

    table = "14"
    primary, others = False, True
    needs = f"{Table3.needs}, on a task with several metrics"
    title = "Table 14 of the oBERT paper, published and measured"
    caption = (
        "Exact match, or another second metric, of the models of Table 3. Published: as printed in Table 14 of "
        f"Kurtic et al. 2022 (BERT-base, SQuAD v1.1). {LEGEND}"
    )
