"""Figure 3 of the oBERT paper: ablation of the Fisher's block size."""

from obert.tables._sweeps import CAPTION, Ablation


class Figure3(Ablation):
    """A line a block size. The paper's line of M-FAC, the whole Fisher, is no block size and is not drawn."""

    parameter = "fisher_block_size"
    symbol = "B"
    title = "Ablation of the block size"
    caption = CAPTION.format(number=3)
