"""What the second-order methods share that rest on a block-diagonal Fisher: estimating it, memory, passes, solving.

"The paper" is Kurtic et al. 2022, arXiv 2203.07259.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PlainValidator, model_validator
from torch import Tensor

from obert.foundation import processes
from obert.foundation.errors import UserError
from obert.foundation.memory import free_memory
from obert.masks.patterns import AnyPattern, LayerPatterns
from obert.masks.selection import Masks
from obert.pruning import Context, Proposal, Update
from obert.pruning.shared.fisher_sharing import SharedFisher, shared_fisher
from obert.pruning.shared.gradient_based import GradientBased
from obert.pruning.shared.process_shares import failing_together, gathered, owners
from obert.second_order import solvers
from obert.second_order.fisher import BlockFisher, RecursiveFisher
from obert.second_order.gradients import DenseGradients, Gradients
from obert.second_order.solvers import Solver

AnyFisher = BlockFisher | RecursiveFisher


def _checked(value: object) -> float | str:
    """A number as float, a share as in '1%'."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < math.inf:
        raise ValueError("should be greater than or equal to 0, or a share as in '1%'")
    return f"{number:g}%" if text.endswith("%") else number


Dampening = Annotated[
    float | str,
    PlainValidator(_checked),
    Field(description="lambda, or a share of the mean of a tensor's Fisher diagonal"),
]


@dataclass(frozen=True)
class FisherProposal(Proposal):
    """Scores from a Fisher, with what the update needs of it.

    Attributes:
        method: whose settings hold.
        context: that the scores are of.
        fisher: all of this process's blocks, or None where they do not fit at once: then they are estimated anew, pass
            by pass.
        multipliers: of the solver, by the names of this process's weights.
    """

    method: BlockFisherMethod = field(kw_only=True)
    context: Context = field(kw_only=True)
    fisher: AnyFisher | None = field(kw_only=True)
    multipliers: Mapping[str, Tensor] = field(kw_only=True)

    def update(self, pruned: Masks) -> Update:
        """The solver's change of the weights that stay."""
        masks, changes, increases = self.context.masks, {}, {}
        with failing_together():
            for names in self.method.passes(masks):
                fisher = self.fisher or self.method.estimate(self.context, names)
                for name in names:
                    changes[name], increases[name] = self._change(fisher, name, pruned[name])
        total = gathered(increases, masks, torch.float64, scalar=True)
        return Update(gathered(changes, masks, torch.float32), {name: float(value) for name, value in total.items()})

    def _change(self, fisher: AnyFisher, name: str, pruned: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.context.layers[name].weight.detach()
        flat = fisher.as_blocks(weight).flatten().double()
        chosen, multipliers = fisher.as_blocks(pruned).flatten(), self.multipliers[name].double()
        changes, increase = torch.zeros_like(flat), flat.new_zeros(())
        for slab in fisher.slabs(name, self.context.pattern.size):
            at, method = slab.positions, self.method
            changes[at], more = solvers.update(
                method.solver, slab, flat[at] * slab.kept, chosen[at], multipliers[at], name, method.update_scale
            )
            increase += more
        return changes[: weight.numel()].view_as(weight).float(), increase


class BlockFisherMethod(GradientBased):
    """Scores and updates from a dampened block-diagonal empirical Fisher.

    In several processes (torch.distributed) each holds the blocks of its share of the tensors, and all end with the
    same masks and weights as one process alone.
    """

    fisher_block_size: int = Field(50, gt=0, description="B")
    dampening: Dampening = "1%"
    fisher_memory: float | None = Field(
        None, gt=0, description="GB that the blocks may take; more passes over the gradients where they need more"
    )
    solver: Solver = "independent"
    accumulation: Literal["sum", "recursion"] = Field(
        "sum", description="recursion: the paper's rank-one updates, for ablations"
    )

    solved_with: ClassVar[frozenset[str]] = frozenset({"dampening", "solver"})
    """Fields that the scores depend on, and the sums of the Fisher do not."""
    used_elsewhere: ClassVar[frozenset[str]] = frozenset({"recomputations", "recomputation_spacing"})
    """Fields that neither the sums nor the scores of a first step depend on."""

    @model_validator(mode="after")
    def _recursion_starts_somewhere(self):
        if self.accumulation == "recursion" and (isinstance(self.dampening, str) or self.dampening == 0):
            raise ValueError("accumulation: recursion starts from I / dampening: set 'dampening' to a number above 0")
        return self

    @property
    def update_scale(self) -> float:
        """Factor of the solver's change of the weights that stay."""
        return 1.0

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Groups of weights must lie in a row, and not straddle blocks."""
        if isinstance(pattern, LayerPatterns) or pattern.rows > 1:
            raise UserError(f"second-order methods prune groups inside rows (1xG, N:M), not pattern {pattern}")
        if self.fisher_block_size % pattern.size:
            raise UserError(
                f"fisher_block_size {self.fisher_block_size} must be a multiple of {pattern.size} for pattern {pattern}"
            )

    def propose(self, context: Context) -> FisherProposal:
        """The loss increase 1/2 w_Q' (F^-1[Q, Q])^-1 w_Q of the cheapest set Q with the weight (paper, eq. 4)."""
        self.check_pattern(context.pattern)
        passes = self.passes(context.masks)
        kept = self._kept(context)
        known = kept and kept.fisher and kept.fisher.dampened(self.dampening)
        solution = (self._values_of(self.solved_with), str(context.pattern))
        if known and kept.solution == solution:
            return FisherProposal(kept.scores, method=self, context=context, fisher=known, multipliers=kept.multipliers)
        if context.draw == 0 and known is None:
            self._check_memory(context.masks, len(passes))
        scores, multipliers, fisher = {}, {}, None
        with failing_together():
            for names in passes:
                fisher = known or self.estimate(context, names)
                for name in names:
                    scores[name], multipliers[name] = self._score(fisher, name, context)
        fisher = fisher if len(passes) == 1 else None
        scores = gathered(scores, context.masks, torch.float32)
        if kept is not None:
            kept.fisher, kept.solution = fisher, solution
            kept.scores, kept.multipliers = scores, multipliers
        return FisherProposal(scores, method=self, context=context, fisher=fisher, multipliers=multipliers)

    def _score(self, fisher: AnyFisher, name: str, context: Context) -> tuple[Tensor, Tensor]:
        weight = context.layers[name].weight.detach()
        flat = fisher.as_blocks(weight).flatten().double()
        scores, multipliers = torch.zeros_like(flat), torch.zeros_like(flat)
        for slab in fisher.slabs(name, context.pattern.size):
            found = solvers.scores(self.solver, slab, flat[slab.positions] * slab.kept, context.pattern, name)
            scores[slab.positions], multipliers[slab.positions] = found
        return scores[: weight.numel()].view_as(weight).float(), multipliers.float()

    def estimate(self, context: Context, names: list[str]) -> AnyFisher:
        """The Fisher of some of the tensors, from gradients drawn for it; the same whenever the context is."""
        masks = {name: context.masks[name] for name in names}
        if self.accumulation == "sum":
            fisher = BlockFisher(masks, self.fisher_block_size, self.dampening)
        else:
            fisher = RecursiveFisher(masks, self.fisher_block_size, self.dampening, self.num_gradients)
        for name, gradients in self._drawn_together(context, masks):
            fisher.add(name, gradients)
        return fisher

    def _kept(self, context: Context) -> SharedFisher | None:
        """What this event may share; see `fisher_sharing`.

        None where weights are pruned already, and where the blocks are not held all at once.
        """
        is_first = context.draw == 0 and all(bool(mask.all()) for mask in context.masks.values())
        if not is_first or self.accumulation != "sum" or self.fisher_memory is not None:
            return None
        return shared_fisher(self._estimation())

    def _estimation(self) -> Hashable:
        """All of the method that may change the sums: its class, as that draws the gradients, and every field but those
        that are known not to. A field that a subclass adds counts until it says otherwise."""
        return type(self), self._values_of(set(type(self).model_fields) - self.solved_with - self.used_elsewhere)

    def _values_of(self, fields: set[str] | frozenset[str]) -> str:
        return json.dumps(self.model_dump(mode="json", include=set(fields)), sort_keys=True)

    def _drawn_together(self, context: Context, masks: Masks) -> Iterator[tuple[str, Gradients | DenseGradients]]:
        """The gradients; those of minibatches some at a time, since each call reads and writes all of the blocks."""
        room = self._room()
        if not room:
            yield from self.draw(context, masks)
            return
        held = {name: torch.empty(room, *mask.shape, device=mask.device) for name, mask in masks.items()}
        count = dict.fromkeys(masks, 0)
        for name, gradients in self.draw(context, masks):
            held[name][count[name]] = gradients.values[0]
            count[name] += 1
            if count[name] == room:
                yield name, DenseGradients(held[name])
                count[name] = 0
        for name, rest in count.items():
            if rest:
                yield name, DenseGradients(held[name][:rest])

    def _room(self) -> int:
        """How many minibatches' gradients are gathered: at most a thirty-second of the blocks' memory."""
        room = min(self.num_gradients, self.fisher_block_size // 32)
        return room if self.gradients == "minibatch" and room > 1 else 0

    def _held_bytes(self, size: int) -> int:
        """The blocks of a tensor of `size` weights, and gradients gathered for them."""
        return BlockFisher.memory_bytes(size, self.fisher_block_size) + 4 * self._room() * size

    def passes(self, masks: Masks) -> list[list[str]]:
        """This process's tensors, as many at a time as `fisher_memory` allows."""
        owner, rank = owners({name: mask.numel() for name, mask in masks.items()}), processes.rank()
        budget = float("inf") if self.fisher_memory is None else self.fisher_memory * 1e9
        passes, room = [], 0.0
        for name in (name for name in masks if owner[name] == rank):
            needed = self._held_bytes(masks[name].numel())
            if needed > budget:
                raise UserError(
                    f"fisher_memory {self.fisher_memory:g} GB: the blocks of tensor '{name}' alone take "
                    f"{needed / 1e9:.3g} GB. Raise it, or lower fisher_block_size"
                )
            if not passes or needed > room:
                passes.append([])
                room = budget
            passes[-1].append(name)
            room -= needed
        return passes

    def _check_memory(self, masks: Masks, passes: int) -> None:
        """Print what the blocks take, and raise UserError before the first gradient if it is more than there is."""
        needed = self.memory_bytes({name: mask.numel() for name, mask in masks.items()})
        free = free_memory(next(iter(masks.values())).device)
        print(f"Fisher: {needed / 1e9:.2f} GB, passes over the gradients: {passes}", flush=True)
        if needed > free:
            raise UserError(
                f"the Fisher needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Set fisher_memory (GB) to work "
                "in several passes, or lower fisher_block_size"
            )

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """The blocks that one process holds at a time, and what is worked on beside them."""
        owner = owners(sizes)
        held = sum(self._held_bytes(size) for name, size in sizes.items() if owner[name] == processes.rank())
        if self.fisher_memory is not None:
            held = min(held, int(self.fisher_memory * 1e9))
        return held + 40 * max(sizes.values()) + 8 * sum(sizes.values())
