"""QNLI: does a sentence hold the answer to a question (Wang et al. 2018, from SQuAD, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import Classification


class QNLI(Classification):
    """The validation split is the one that papers report, since the labels of the test split are hidden."""

    labels = ("entailment", "not_entailment")
    hub_config = "qnli"
    sentences = ("question", "sentence")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
