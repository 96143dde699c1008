"""Table 12 of the oBERT paper: the other metrics of Table 1's models."""

from obert.tables._paper import LEGEND
from obert.tables.table1 import Table1


class Table12(Table1):
    """As Table 1; tasks with one metric have no rows."""

    table = "12"
    primary, others = False, True
    needs = f"{Table1.needs}, on a task with several metrics"
    title = "Table 12 of the oBERT paper, published and measured"
    caption = (
        "Other metrics of the models of Table 1. Published: means as printed in Table 12 of Kurtic et al. 2022 "
        f"(BERT-base, full data sets). {LEGEND}"
    )
