"""Table 8 of the oBERT paper: pruned and quantised for the MLPerf inference benchmark."""

from obert.tables import Results
from obert.tables._deployed import Deployed, measured_models, relative_to
from obert.tables._measured import DENSE
from obert.tables._models import LEGEND, ModelTable

REFERENCE = "squad_bert_large"
BATCH_SIZE, SEQUENCE_LENGTH = 128, 384


class Table8(ModelTable):
    """The dense models and those that are pruned and quantised."""

    table = "8"
    engine = "deepsparse"
    sizes = ("score", "recall", "size_mb", "size_gzip_mb", "compression_ratio")
    speeds = ("throughput", "speedup")
    needs = "exported and timed models that are pruned, then quantised (quantize, benchmark)"
    of = "BERT-large, and MobileBERT cut to 14 layers"
    title = "Table 8 of the oBERT paper, published and measured"
    caption = (
        "Published: as printed in Table 8 of Kurtic et al. 2022 (SQuAD v1.1, DeepSparse on two Xeon Platinum 8380, "
        "batch 128, length 384), all relative to BERT-large; it does not say how its files are packed. Measured: the "
        "deployed file in MB (10^6 bytes), raw and after gzip; the ratio is of gzipped sizes. Speeds are those with "
        f"batch {BATCH_SIZE} and length {SEQUENCE_LENGTH} where they were timed, or else this experiment's. Throughput "
        f"in items/s. {LEGEND} With the task {REFERENCE} in the experiment, everything is relative to its dense model, "
        "as in the paper: speed-ups of other tasks' models are then ratios of throughputs from two processes."
    )

    def tasks(self, results: Results) -> tuple[str, ...]:
        """Those with an encoder of their own; all where there is none."""
        return tuple(task for task in results.tasks if task in results.other_encoders) or results.tasks

    def measured(self, results: Results) -> list[Deployed]:
        models = self.belonging(results, measured_models(results, (BATCH_SIZE, SEQUENCE_LENGTH)))
        dense = next((m for m in models if m.task == REFERENCE and m.compression == DENSE), None)
        return [m if dense is None or m.task == REFERENCE else relative_to(m, dense) for m in models]

    def belongs(self, model: Deployed) -> bool:
        return model.compression == DENSE or (model.is_quantized and model.sparsity > 0)
