"""Figure 7 of the oBERT paper: the sparsity in runs of 10 epochs."""

from obert.tables._schedules import CAPTION, KINDS, PaperSchedule


class Figure7(PaperSchedule):
    """Sparsities of runs that rewind the learning rate once at most."""

    epochs = 10
    quantity = "sparsity"
    rewinds_often = False
    title = "Figure 7 of the oBERT paper: sparsity"
    caption = CAPTION.format(number=7, epochs=epochs, kind=KINDS[rewinds_often])
