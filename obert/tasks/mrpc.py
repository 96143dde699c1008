"""MRPC: do two sentences of the news say the same (Dolan and Brockett 2005, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import ClassificationWithF1


class MRPC(ClassificationWithF1):
    """Accuracy and the F1 of paraphrases, which are two thirds of the pairs."""

    labels = ("not_equivalent", "equivalent")
    hub_config = "mrpc"
    sentences = ("sentence1", "sentence2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
