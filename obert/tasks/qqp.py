"""QQP: do two questions ask the same (Quora question pairs, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import ClassificationWithF1


class QQP(ClassificationWithF1):
    """Accuracy and the F1 of duplicates, which are the smaller class."""

    labels = ("not_duplicate", "duplicate")
    hub_config = "qqp"
    sentences = ("question1", "question2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
