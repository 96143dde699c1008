"""What the second-order methods share that rest on a block-diagonal Fisher: memory, passes, processes, solving."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from pydantic import Field, PrivateAttr
from torch import Tensor

from obert.foundation import processes
from obert.foundation.errors import UserError
from obert.foundation.memory import free_memory
from obert.masks.patterns import AnyPattern, LayerPatterns
from obert.masks.selection import Masks
from obert.pruning import Context
from obert.pruning._gradient_based import GradientBased
from obert.second_order import solvers
from obert.second_order.fisher import BlockFisher, RecursiveFisher
from obert.second_order.gradients import DenseGradients, Gradients
from obert.second_order.solvers import Solver


@dataclass
class SharedFisher:
    """The Fisher of one pruning event, kept for others that differ in dampening, solver or sparsity alone, and the
    scores, kept for those that differ in sparsity alone.

    Attributes:
        origin: what the Fisher was estimated from.
        fisher: None before the first event.
        solution: dampening, solver and pattern that the scores are of.
        scores: by weight; `multipliers` belong to them.
    """

    origin: Hashable = None
    fisher: BlockFisher | None = None
    solution: Hashable = None
    scores: dict[str, Tensor] | None = None
    multipliers: dict[str, Tensor] | None = None


_SHARING: ContextVar[tuple[SharedFisher, Hashable] | None] = ContextVar("sharing", default=None)


@contextmanager
def sharing(kept: SharedFisher, origin: Hashable) -> Iterator[None]:
    """A block in which dense models are pruned by a Fisher, and by scores, that are kept from an earlier event if they
    would be the same.

    Args:
        kept: is used where it fits, and filled anew where it does not.
        origin: names what decides the gradients besides the method's own parameters: weights, data, seeds. The caller
            answers for it that they are the same where it is.
    """
    token = _SHARING.set((kept, origin))
    try:
        yield
    finally:
        _SHARING.reset(token)


class BlockFisherMethod(GradientBased):
    """Scores and updates from a dampened block-diagonal empirical Fisher.

    In several processes (torch.distributed) each holds the blocks of its share of the tensors, and all end with the
    same masks and weights as one process alone.
    """

    fisher_block_size: int = Field(50, gt=0, description="B")
    dampening: float = Field(1e-7, ge=0, description="lambda")
    fisher_memory: float | None = Field(
        None, gt=0, description="GB that the blocks may take; more passes over the gradients where they need more"
    )
    solver: Solver = "independent"
    accumulation: Literal["sum", "recursion"] = Field(
        "sum", description="recursion: the paper's rank-one updates, for ablations"
    )

    _fisher: BlockFisher | RecursiveFisher | None = PrivateAttr(None)
    _multipliers: dict[str, Tensor] = PrivateAttr(default_factory=dict)

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

    def score(self, context: Context) -> dict[str, Tensor]:
        """The loss increase 1/2 w_Q' (F^-1[Q, Q])^-1 w_Q of the cheapest set Q with the weight (paper, eq. 4)."""
        self.check_pattern(context.pattern)
        passes = self._passes(context.masks)
        kept = self._kept(context)
        known = kept and kept.fisher and kept.fisher.dampened(self.dampening)
        solution = (self.dampening, self.solver, str(context.pattern))
        if known and kept.solution == solution:
            self._fisher, self._multipliers = known, kept.multipliers
            return dict(kept.scores)
        if context.draw == 0 and known is None:
            self._check_memory(context.masks, len(passes))
        scores, fisher = {}, None
        with _failing_together():
            for names in passes:
                fisher = known or self._estimate(context, names)
                for name in names:
                    scores[name], self._multipliers[name] = self._score(fisher, name, context)
        self._fisher = fisher if len(passes) == 1 else None
        scores = _shared(scores, context.masks, torch.float32)
        if kept is not None:
            kept.fisher, kept.solution = self._fisher, solution
            kept.scores, kept.multipliers = dict(scores), self._multipliers
        return scores

    def update(self, context: Context, pruned: Masks) -> dict[str, Tensor]:
        """The solver's change of the weights that stay."""
        changes, increases = {}, {}
        with _failing_together():
            for names in self._passes(context.masks):
                fisher = self._fisher or self._estimate(context, names)
                for name in names:
                    changes[name], increases[name] = self._change(fisher, name, context, pruned[name])
        self._fisher, self._multipliers = None, {}
        known = context.details.setdefault("predicted_loss_increase", {})
        for name, increase in _shared(increases, context.masks, torch.float64, scalar=True).items():
            known[name] = known.get(name, 0.0) + float(increase)
        return _shared(changes, context.masks, torch.float32)

    def _score(self, fisher: BlockFisher | RecursiveFisher, name: str, context: Context) -> tuple[Tensor, Tensor]:
        weight = context.layers[name].weight.detach()
        flat = fisher.as_blocks(weight).flatten().double()
        scores, multipliers = torch.zeros_like(flat), torch.zeros_like(flat)
        for slab in fisher.slabs(name, context.pattern.size):
            found = solvers.scores(self.solver, slab, flat[slab.positions] * slab.kept, context.pattern, name)
            scores[slab.positions], multipliers[slab.positions] = found
        return scores[: weight.numel()].view_as(weight).float(), multipliers.float()

    def _change(
        self, fisher: BlockFisher | RecursiveFisher, name: str, context: Context, pruned: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight = context.layers[name].weight.detach()
        flat = fisher.as_blocks(weight).flatten().double()
        chosen, multipliers = fisher.as_blocks(pruned).flatten(), self._multipliers[name].double()
        changes, increase = torch.zeros_like(flat), flat.new_zeros(())
        for slab in fisher.slabs(name, context.pattern.size):
            at = slab.positions
            changes[at], more = solvers.update(
                self.solver, slab, flat[at] * slab.kept, chosen[at], multipliers[at], name, self.update_scale
            )
            increase += more
        return changes[: weight.numel()].view_as(weight).float(), increase

    def _estimate(self, context: Context, names: list[str]) -> BlockFisher | RecursiveFisher:
        masks = {name: context.masks[name] for name in names}
        if self.accumulation == "sum":
            fisher = BlockFisher(masks, self.fisher_block_size, self.dampening)
        else:
            fisher = RecursiveFisher(masks, self.fisher_block_size, self.dampening, self.num_gradients)
        for name, gradients in self._gathered(context, masks):
            fisher.add(name, gradients)
        return fisher

    def _kept(self, context: Context) -> SharedFisher | None:
        """What this event may share: with the Fisher in it if that is this event's too, without it if not.

        None outside of `sharing`, where weights are pruned already, and where the blocks are not held all at once.
        """
        is_first = context.draw == 0 and all(bool(mask.all()) for mask in context.masks.values())
        if _SHARING.get() is None or not is_first or self.accumulation != "sum" or self.fisher_memory is not None:
            return None
        kept, origin = _SHARING.get()
        own = ("num_gradients", "gradients", "gradient_batch_size", "gradient_loss", "fisher_block_size")
        origin = (origin, *(getattr(self, name) for name in own))
        if kept.origin != origin:  # another's memory is needed for the next
            kept.origin, kept.fisher, kept.solution, kept.scores, kept.multipliers = origin, None, None, None, None
        return kept

    def _gathered(self, context: Context, masks: Masks) -> Iterator[tuple[str, Gradients | DenseGradients]]:
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

    def _passes(self, masks: Masks) -> list[list[str]]:
        """This process's tensors, as many at a time as `fisher_memory` allows."""
        owners, rank = _owners({name: mask.numel() for name, mask in masks.items()}), processes.rank()
        budget = float("inf") if self.fisher_memory is None else self.fisher_memory * 1e9
        passes, room = [], 0.0
        for name in (name for name in masks if owners[name] == rank):
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
        owners = _owners(sizes)
        held = sum(self._held_bytes(size) for name, size in sizes.items() if owners[name] == processes.rank())
        if self.fisher_memory is not None:
            held = min(held, int(self.fisher_memory * 1e9))
        return held + 40 * max(sizes.values()) + 8 * sum(sizes.values())


@contextmanager
def _failing_together() -> Iterator[None]:
    """A block whose mistake in one process is raised in all, which would else wait for what it was to send."""
    error = None
    try:
        yield
    except UserError as mistake:
        error = mistake
    if processes.are_several():
        messages: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(messages, error and str(error))
        error = error or next((UserError(message) for message in messages if message), None)
    if error:
        raise error


def _owners(sizes: Mapping[str, int]) -> dict[str, int]:
    """The process that holds each tensor's blocks: largest first, to the one with least."""
    world = processes.count()
    load = [0] * world
    owners = {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        owners[name] = load.index(min(load))
        load[owners[name]] += sizes[name]
    return owners


def _shared(own: dict[str, Tensor], masks: Masks, dtype: torch.dtype, scalar: bool = False) -> dict[str, Tensor]:
    """What every process has found for its own tensors (of the masks' shape, or one number each), in all of them."""
    if not processes.are_several():
        return {name: own[name] for name in masks}
    owners = _owners({name: mask.numel() for name, mask in masks.items()})
    result = {}
    for name, mask in masks.items():
        shape = () if scalar else mask.shape
        result[name] = own[name] if name in own else torch.empty(shape, dtype=dtype, device=mask.device)
        dist.broadcast(result[name], src=owners[name])
    return result
