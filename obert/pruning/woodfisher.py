"""WoodFisher (Singh and Alistarh 2020, arXiv 2004.14340): large blocks of the Fisher, few gradients of minibatches."""

from typing import ClassVar

from pydantic import Field

from obert.pruning.shared.block_fisher import BlockFisherMethod, Dampening


class WoodFisher(BlockFisherMethod):
    """Optimal Brain Surgeon on large blocks along each flattened tensor, weights ranked and updated one by one.

    Score w^2 / (2 [F^-1]_qq), update -w_q / [F^-1]_qq F^-1 e_q. Defaults are those of the source's ResNet-50 runs, but
    for the size of the minibatches (400 there) and the smaller of the block sizes that its README advises. Memory is
    d * B * 4 bytes, 4 KB a weight: set `fisher_memory` for passes that fit, at the price of drawing the gradients anew.
    Of several gradients in a block, the source's recursion and the sum inverted here are the same up to rounding.
    """

    small_settings: ClassVar = {"num_gradients": 8, "gradient_batch_size": 4, "fisher_block_size": 40}
    used_elsewhere: ClassVar = BlockFisherMethod.used_elsewhere | {"scale_prune_update"}

    num_gradients: int = Field(400, gt=0, description="m")
    fisher_block_size: int = Field(1000, gt=0, description="B")
    dampening: Dampening = 1e-5
    scale_prune_update: float = Field(1.0, ge=0, description="factor of the update; 0 leaves the other weights alone")

    @property
    def update_scale(self) -> float:
        """The source's `--scale-prune-update`."""
        return self.scale_prune_update
