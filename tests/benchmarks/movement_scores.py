"""Remove weights by movement pruning's scores, from either end, and at random: what few steps of scores know.

    python tests/benchmarks/movement_scores.py --config configs/real_tasks.yaml --task sst2

The experiment's fine-tuned model of the task, which must have been made, is trained on from itself, as a teacher, while
the scores are learned. Printed: its score after that, and without a share of its weights, by draws of training data.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable
from dataclasses import replace

import pandas as pd
import torch
from dampening import score, start
from torch import Tensor

from obert.experiment.plan import Plan, PlannedRun
from obert.masks.selection import dense_masks, global_masks
from obert.models.encoders import prunable_layers
from obert.pruning.movement import Movement
from obert.training.pruner import TrainingFeatures

BATCH, RATE, TEMPERATURE = 16, 1e-4, 2.0  # as in configs/recipes/real_equal_terms.yaml
SHARES = (0.02, 0.05, 0.1)


def by_end(scores: dict[str, Tensor], draw: int) -> dict[str, dict[str, Tensor]]:
    """Scores of which the lowest are to be removed, by what these are."""
    generator = torch.Generator().manual_seed(draw)
    return {
        "lowest": scores,
        "highest": {name: -value for name, value in scores.items()},
        "random": {name: torch.rand(value.shape, generator=generator) for name, value in scores.items()},
    }


def measured(teacher: PlannedRun, steps: int, draws: Iterable[int]) -> pd.DataFrame:
    """The score [draw, end, share] after `steps` steps and a removal; of no removal beside it."""
    dense, lines = start(teacher), []
    dense.network.eval()
    for draw in draws:
        prepared = replace(dense, network=copy.deepcopy(dense.network))
        network, head = prepared.network, prepared.task.head
        layers = prunable_layers(network)
        hook = Movement().training_hook(network, layers)
        weights = [parameter for name, parameter in network.named_parameters() if not name.endswith(".scores")]
        optimizer = torch.optim.AdamW([{"params": weights}, *hook.parameter_groups()], lr=RATE, weight_decay=0.0)
        torch.manual_seed(draw)
        data = TrainingFeatures(prepared.train, 1_000_003 * (draw + 1), torch.device("cpu"))
        for batch in data.minibatches(steps, BATCH, draw):
            network.train()
            with torch.no_grad():
                wanted = head.forward(dense.network, batch)
            optimizer.zero_grad()
            head.distillation_losses(head.forward(network, batch), wanted, TEMPERATURE, batch).mean().backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        network.eval()
        kept = dense_masks(hook.weights)
        lines.append({"draw": draw, "removed": "none", "share": 0.0, "score": score(prepared)})
        for end, scores in by_end(hook.scores, draw).items():
            for share in SHARES:
                hook.impose(global_masks(scores, kept, share))
                lines.append({"draw": draw, "removed": end, "share": share, "score": score(prepared)})
    return pd.DataFrame(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/real_tasks.yaml", help="experiment with the task and its teacher")
    parser.add_argument("--task", required=True, help="one of the experiment's")
    parser.add_argument("--steps", type=int, default=50, help="of training, in which the scores are learned")
    parser.add_argument("--draw", type=int, nargs="+", default=[0, 1, 2], help="numbers of draws of training data")
    arguments = parser.parse_args(argv)
    found = measured(Plan.load(arguments.config).teacher(arguments.task), arguments.steps, arguments.draw)
    means = found.pivot_table("score", "removed", "share", sort=False)
    print(means.round(1).to_string())


if __name__ == "__main__":
    main()
