"""Train the dense upstream teacher: a masked language model, from the pre-trained encoder."""

from obert.plan import RunKey
from obert.provenance import code_hash
from obert.records import Record
from obert.schema import Experiment
from obert.stages.teacher import train_dense


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train, evaluate, save; resumes from the last checkpoint of the same run.

    An encoder without a masked-language-model head gets one that is tied to its embeddings.

    Raises:
        UserError: model or data are missing, or training diverges.
    """
    return train_dense(experiment, key, code_hash("upstream_teacher", tasks=key.task))
