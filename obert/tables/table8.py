"""Table 8 of the oBERT paper: pruned and quantised for the MLPerf inference benchmark."""

from obert.tables._deployed import Deployed
from obert.tables._models import LEGEND, ModelTable


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
        f"deployed file in MB (10^6 bytes), raw and after gzip; the ratio is of gzipped sizes. "
        f"Throughput in items/s. {LEGEND}"
    )

    def belongs(self, model: Deployed) -> bool:
        return model.compression == "dense" or (model.is_quantized and model.sparsity > 0)
