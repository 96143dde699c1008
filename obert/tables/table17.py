"""Table 17 of the oBERT paper: size and speed of compressed models."""

from obert.tables._models import LEGEND, ModelTable


class Table17(ModelTable):
    """Every exported model."""

    table = "17"
    engine = "deepsparse"
    sizes = ("score", "recall", "size_gzip_mb", "compression_ratio")
    speeds = ("throughput", "speedup")
    needs = "exported and timed models (benchmark)"
    title = "Table 17 of the oBERT paper, published and measured"
    caption = (
        "Published: as printed in Table 17 of Kurtic et al. 2022 (BERT-base, SQuAD v1.1, DeepSparse on a c5.12xlarge, "
        "batch 32, length 128). Size: the deployed file after gzip, in MB (10^6 bytes); ratio: the dense model's size "
        f"over it. Throughput in items/s. {LEGEND}"
    )
