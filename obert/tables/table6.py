"""Table 6 of the oBERT paper: weights left and speed, against DistilBERT, TinyBERT and Hybrid Filled MvP."""

from obert.tables._deployed import Deployed
from obert.tables._models import LEGEND, ModelTable


class Table6(ModelTable):
    """Every exported model in float32. The rivals have published numbers only: no stage makes them."""

    table = "6"
    engine = "each on its device"
    sizes = ("weights_millions", "weights_ratio", "score")
    speeds = ("speedup",)
    needs = "exported and timed models that are not quantised (benchmark)"
    title = "Table 6 of the oBERT paper, published and measured"
    caption = (
        "Size: weights of the encoder that are not zero, in millions, and how many times fewer they are than the dense "
        "model's. Published: as printed in Table 6 of Kurtic et al. 2022 (BERT-base, SQuAD v1.1). Its own models are "
        "the dense and the unstructured ones, timed on a CPU; DistilBERT, TinyBERT and Hybrid Filled MvP are quoted, "
        f"were timed on GPUs, and have published numbers only, as no stage makes them. {LEGEND}"
    )

    def belongs(self, model: Deployed) -> bool:
        return not model.is_quantized
