"""STS-B: how alike do two sentences mean, from 0 to 5 (Cer et al. 2017, as in GLUE)."""

from pydantic import Field

from obert.tasks._regression import Regression


class STSB(Regression):
    """Pearson's and Spearman's correlation with the mean judgement of people, both times 100."""

    hub_config = "stsb"
    sentences = ("sentence1", "sentence2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
