"""Table 15 of the oBERT paper: the standard deviations of Tables 1 and 12."""

from obert.tables._spreads import CAPTION, Spreads
from obert.tables.table1 import Table1
from obert.tables.table12 import Table12


class Table15(Spreads):
    """Column groups are those of Tables 1 and 12 that have several runs."""

    tables = (Table1, Table12)
    title = "Table 15 of the oBERT paper, published and measured"
    caption = CAPTION.format(number=15, tables="1 and 12", runs="three")
