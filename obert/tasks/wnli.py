"""WNLI: does a sentence entail what it says with a pronoun resolved (Levesque et al. 2012, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import Classification


class WNLI(Classification):
    """Most validation sentences stand in training too with the other answer, so papers often leave this task out."""

    labels = ("not_entailment", "entailment")
    hub_config = "wnli"
    sentences = ("sentence1", "sentence2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
