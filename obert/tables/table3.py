"""Table 3 of the oBERT paper: fewer layers, pruned in one pattern or another, quantised."""

from obert.tables import Results
from obert.tables._measured import Group, groups
from obert.tables._paper import LEGEND, PaperTable


class Table3(PaperTable):
    """Rows are layers and sparsities; column groups are patterns."""

    table = "3"
    by_layers = True
    needs = "models of fewer layers (upstream, then transfer or downstream), or quantised ones (quantize)"
    title = "Table 3 of the oBERT paper, published and measured"
    caption = (
        "Compound compression. Published: F1 as printed in Table 3 of Kurtic et al. 2022 (BERT-base, SQuAD v1.1). "
        f"{LEGEND} Models with all layers are listed if they train for as many epochs as those with fewer."
    )

    def select(self, results: Results, task: str) -> list[Group]:
        found = groups(results, task)
        quantized = [group for group in found if group.key.stage == "quantize"]
        found = [g for g in found if g.key.stage == "downstream" or (g.key.stage == "transfer" and g.sparsity == 0)]
        epochs = {group.epochs for group in found if group.drops_layers(results)}
        return [*(group for group in found if group.epochs in epochs), *quantized]
