"""Figure 5 of the oBERT paper: ablation of the dampening."""

from obert.tables._sweeps import CAPTION, Ablation


class Figure5(Ablation):
    """A line a value of the dampening."""

    symbols = {"dampening": "\N{GREEK SMALL LETTER LAMDA}"}
    title = "Ablation of the dampening"
    caption = CAPTION.format(number=5)
