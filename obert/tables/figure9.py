"""Figure 9 of the oBERT paper: the sparsity in runs of 30 epochs."""

from obert.tables._schedules import CAPTION, KINDS, PaperSchedule


class Figure9(PaperSchedule):
    """Sparsities of runs that rewind the learning rate more than once."""

    epochs = 30
    quantity = "sparsity"
    rewinds_often = True
    title = "Figure 9 of the oBERT paper: sparsity"
    caption = CAPTION.format(number=9, epochs=epochs, kind=KINDS[rewinds_often])
