"""Table 13 of the oBERT paper: the other metrics of Table 2's models."""

from obert.tables._paper import LEGEND
from obert.tables.table2 import Table2


class Table13(Table2):
    """As Table 2; tasks with one metric have no rows."""

    table = "13"
    primary, others = False, True
    needs = f"{Table2.needs}, on a task with several metrics"
    title = "Table 13 of the oBERT paper, published and measured"
    caption = (
        "Other metrics of the models of Table 2. Published: means as printed in Table 13 of Kurtic et al. 2022 "
        f"(BERT-base, full data sets). {LEGEND}"
    )
