"""RTE: does one text entail another (Dagan et al. 2006 and the challenges after it, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import Classification


class RTE(Classification):
    """The validation split is the one that papers report, since the labels of the test split are hidden."""

    labels = ("entailment", "not_entailment")
    hub_config = "rte"
    sentences = ("sentence1", "sentence2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
