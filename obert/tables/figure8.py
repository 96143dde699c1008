"""Figure 8 of the oBERT paper: the learning rate in runs of 30 epochs."""

from obert.tables._schedules import CAPTION, KINDS, PaperSchedule


class Figure8(PaperSchedule):
    """Learning rates of runs that rewind the learning rate more than once."""

    epochs = 30
    quantity = "learning_rate"
    rewinds_often = True
    title = "Figure 8 of the oBERT paper: learning rate"
    caption = CAPTION.format(number=8, epochs=epochs, kind=KINDS[rewinds_often])
