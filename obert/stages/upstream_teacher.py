"""Train the dense upstream teacher: a masked language model, from the pre-trained encoder."""

from obert.experiment.keys import RunKey
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.records.record import Record
from obert.stages.teacher import train_dense


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train, evaluate, save; resumes from the last checkpoint of the same run.

    An encoder without a masked-language-model head gets one that is tied to its embeddings.

    Raises:
        UserError: model or data are missing, or training diverges.
    """
    return train_dense(experiment, key, code_hash("upstream_teacher", tasks=key.task))
