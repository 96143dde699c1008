"""Table 16 of the oBERT paper: the standard deviations of Tables 2 and 13."""

from obert.tables._spreads import CAPTION, Spreads
from obert.tables.table2 import Table2
from obert.tables.table13 import Table13


class Table16(Spreads):
    """Column groups are those of Tables 2 and 13 that have several runs."""

    tables = (Table2, Table13)
    title = "Table 16 of the oBERT paper, published and measured"
    caption = CAPTION.format(number=16, tables="2 and 13", runs="four")
