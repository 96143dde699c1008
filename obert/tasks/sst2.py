"""SST-2: positive or negative phrases from film reviews (Socher et al. 2013, as in GLUE)."""

from pydantic import Field

from obert.tasks._classification import Classification


class SST2(Classification):
    """The validation split is the one that papers report, since the labels of the test split are hidden."""

    labels = ("negative", "positive")
    hub_config = "sst2"

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")
