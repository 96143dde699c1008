"""ALBERT (Lan et al. 2020, arXiv 1909.11942): layers in groups, each group's weights used by several layers."""

from collections.abc import Sequence

from torch import nn

from obert.foundation.errors import UserError
from obert.models.architecture import Architecture


class Albert(Architecture):
    """Layers are counted as the model runs them: 12 in ALBERT-base, of one group.

    Layers that are kept must share groups evenly, as the configuration can say nothing else.
    """

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    def _groups(self, layers: int, groups: int) -> list[int]:
        """The group that each layer belongs to, as AlbertTransformer computes it."""
        return [int(index / (layers / groups)) for index in range(layers)]

    def repeats(self, name: str) -> int:
        """How many layers share the group's weights."""
        if not name.startswith(f"{self.stack_name}."):
            return 1
        group = int(name.removeprefix(f"{self.stack_name}.").partition(".")[0])
        return self._groups(self.layers, len(self.stack)).count(group)

    def _keep(self, layers: Sequence[int]) -> None:
        of_layer = self._groups(self.layers, len(self.stack))
        wanted = [of_layer[index] for index in layers]
        kept = list(dict.fromkeys(wanted))
        if [kept[group] for group in self._groups(len(layers), len(kept))] != wanted:
            raise UserError(
                f"model.layers {list(layers)}: they are of groups {wanted}, and ALBERT's configuration knows groups of "
                "one size only. Keep as many layers of each group"
            )
        self._replace_stack(nn.ModuleList(self.stack[group] for group in kept))
        self.config.num_hidden_groups = len(kept)
        self.config.num_hidden_layers = len(layers)
