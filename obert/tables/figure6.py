"""Figure 6 of the oBERT paper: the learning rate in runs of 10 epochs."""

from obert.tables._schedules import CAPTION, KINDS, PaperSchedule


class Figure6(PaperSchedule):
    """Learning rates of runs that rewind the learning rate once at most."""

    epochs = 10
    quantity = "learning_rate"
    rewinds_often = False
    title = "Figure 6 of the oBERT paper: learning rate"
    caption = CAPTION.format(number=6, epochs=epochs, kind=KINDS[rewinds_often])
