"""Figure 3 of the oBERT paper: ablation of the Fisher's block size."""

from obert.tables._sweeps import CAPTION, Ablation


class Figure3(Ablation):
    """A line a block size; beside it M-FAC, one block of all weights, a line a number of gradients."""

    symbols = {"fisher_block_size": "B", "methods.mfac.num_gradients": "M-FAC, m"}
    title = "Ablation of the block size"
    caption = f"{CAPTION.format(number=3)} M-FAC, the paper's line of one block of all weights, has a panel of its own."
