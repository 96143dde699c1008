"""MNLI: does a premise entail, contradict or leave open a hypothesis (Williams et al. 2018, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import Classification


class MNLI(Classification):
    """Judged on the matched validation set, whose genres are those of the training data."""

    labels = ("entailment", "neutral", "contradiction")
    hub_config = "mnli"
    sentences = ("premise", "hypothesis")
    validation_split = "validation_matched"

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
