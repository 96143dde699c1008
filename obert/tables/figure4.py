"""Figure 4 of the oBERT paper: ablation of the number of gradients."""

from obert.tables._sweeps import CAPTION, Ablation


class Figure4(Ablation):
    """A line a number of gradients."""

    symbols = {"num_gradients": "m"}
    title = "Ablation of the number of gradients"
    caption = CAPTION.format(number=4)
