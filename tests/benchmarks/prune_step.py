"""Time one pruning step against the published procedure, and score both models.

    python -m obert teacher --config configs/default.yaml --task movie_reviews
    python tests/benchmarks/prune_step.py --json

The step: gradients of single examples, the summed block Fisher, the method's default dampening and solver, masks and
update, in one shot, without training. Published: as many gradients, each the mean over a minibatch of the same training
data from a backward pass of its own, the paper's rank-one recursion, and its independent solver. The recursion takes
minutes: `--published-layers K` times it on the first K weights and scales its time to all; the published masks are then
made from the sum of the same gradients, which the recursion equals.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _timing import Clock, environment, gemm_rate, memory_rate, show
from pydantic import PrivateAttr
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from obert.experiment.plan import Plan
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.selection import dense_masks
from obert.models.encoders import load_tokenizer, load_trained, prunable_layers
from obert.pruning import Context, GradientData, TrainingHook, Update, prune_event
from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.shared.block_fisher import FisherProposal
from obert.records.record import MODEL
from obert.second_order.fisher import RecursiveFisher
from obert.second_order.gradients import exact_float32
from obert.training.features import Features
from obert.training.prediction import predict_logits
from obert.training.pruner import TrainingFeatures

EVALUATION_BATCH = 64
PUBLISHED_BATCH = 16
PUBLISHED_DAMPENING = 1e-7
PASS = 32  # examples of one batched pass of ours
RANDOM_LENGTH = 128


class TimedProposal(FisherProposal):
    """With a clock on the update."""

    def update(self, pruned: dict[str, Tensor]) -> Update:
        with self.method.clock("update", next(iter(pruned.values())).device):
            return super().update(pruned)


class Timed(OptimalBertSurgeon):
    """oBERT with a clock on each part and, beside its own Fisher, the recursion on some layers, timed by itself."""

    recursion_layers: int = 0

    _clocks: dict[str, Clock] = PrivateAttr(default_factory=dict)

    def clock(self, part: str, device: torch.device) -> Clock:
        """The clock of a part."""
        return self._clocks.setdefault(part, Clock(device))

    def draw(self, context: Context, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        sampled = list(context.masks)[: self.recursion_layers]
        masks = {name: context.masks[name] for name in sampled}
        recursion = RecursiveFisher(masks, self.fisher_block_size, PUBLISHED_DAMPENING, self.num_gradients)
        device = next(iter(context.masks.values())).device
        drawn = super().draw(context, names)
        while True:
            with self.clock("gradients", device):
                found = next(drawn, None)
            if found is None:
                return
            if found[0] in masks:
                with self.clock("recursion", device):
                    recursion.add(*found)
            yield found

    def estimate(self, context: Context, names: list[str]) -> Any:
        with self.clock("estimate", context.masks[names[0]].device):
            return super().estimate(context, names)

    def propose(self, context: Context) -> FisherProposal:
        with self.clock("score", next(iter(context.masks.values())).device):
            return TimedProposal(**vars(super().propose(context)))

    def seconds(self) -> dict[str, float]:
        """By part; `step` is all of a step, `recursion` that of `recursion_layers`, which is no part of it."""
        found = {part: clock.seconds for part, clock in self._clocks.items()}
        recursion = found.pop("recursion", 0.0)
        estimate = found.pop("estimate")
        score = found.pop("score")
        return {
            "step": found["step"] - recursion,
            "gradients": found["gradients"],
            "accumulation": estimate - found["gradients"] - recursion,
            "solving": score - estimate,
            "update": found["update"],
            "masks": found["step"] - score - found["update"],
            "recursion": recursion,
        }


@dataclass(frozen=True)
class Case:
    """A model to prune. `evaluate` gives accuracy in percent and the number of examples, where there is a task."""

    network: nn.Module
    data: GradientData
    losses: Callable[[Any], Tensor]
    evaluate: Callable[[], tuple[float, int]] | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights, by name."""
        return {name: layer.weight.detach() for name, layer in prunable_layers(self.network).items()}


class RandomTokens:
    """Minibatches of random tokens and labels."""

    def __init__(self, config: BertConfig, length: int, device: torch.device):
        self.config = config
        self.length = length
        self.device = device

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[dict[str, Tensor]]:
        """Minibatches that hold at least `count` examples together."""
        return self.minibatches(-(-count // batch_size), batch_size, draw)

    def minibatches(self, count: int, batch_size: int, draw: int) -> Iterator[dict[str, Tensor]]:
        """`count` minibatches."""
        generator = torch.Generator().manual_seed(draw)
        for _ in range(count):
            tokens = torch.randint(self.config.vocab_size, (batch_size, self.length), generator=generator)
            labels = torch.randint(self.config.num_labels, (batch_size,), generator=generator)
            yield {"input_ids": tokens.to(self.device), "labels": labels.to(self.device)}


def random_case(config: BertConfig, length: int, device: torch.device) -> Case:
    """A randomly initialised BERT, enough to take times."""
    torch.manual_seed(0)
    network, head = BertForSequenceClassification(config).to(device).eval(), SequenceClassification()

    def losses(batch: dict[str, Tensor]) -> Tensor:
        return head.losses(head.forward(network, batch), batch)

    return Case(network, RandomTokens(config, length, device), losses)


def trained_case(config: Path, task_name: str, model: Path | None, device: torch.device) -> Case:
    """A model fine-tuned on a task of an experiment."""
    plan = Plan.load(config)
    if task_name not in plan.experiment.tasks:
        sys.exit(f"{config} has no task '{task_name}'; its tasks are {', '.join(plan.experiment.tasks)}")
    folder = model or plan.teacher(task_name).folder / MODEL
    if not folder.is_dir():
        sys.exit(f"{folder} is missing. Make it: python -m obert teacher --config {config} --task {task_name}")
    task = plan.definitions.task(task_name)
    network, tokenizer = load_trained(folder, task.head).to(device), load_tokenizer(folder)
    train, validation = (Features.encode(task, task.load()[split], tokenizer) for split in ("train", "validation"))

    def losses(batch: dict[str, Tensor]) -> Tensor:
        return task.head.losses(task.head.forward(network, batch), batch)

    def evaluate() -> tuple[float, int]:
        logits = predict_logits(network, validation, EVALUATION_BATCH)
        predictions = task.predict(logits, validation.features, validation.examples)
        score = task.score(predictions, validation.examples)[task.primary_metric]
        return score.value, score.count

    return Case(network, TrainingFeatures(train, 0, device), losses, evaluate)


def step(case: Case, method: Timed, sparsity: float) -> tuple[dict[str, float], float | None]:
    """One pruning step: seconds by part, and the accuracy after it. The weights are restored."""
    weights = case.weights
    saved = {name: weight.clone() for name, weight in weights.items()}
    masks, layers = dense_masks(weights), prunable_layers(case.network)
    context = Context(TrainingHook(layers), masks, case.data, case.losses, torch.Generator().manual_seed(0))
    with method.clock("step", next(iter(weights.values())).device):
        prune_event(method, context, sparsity)
    accuracy = case.evaluate()[0] if case.evaluate else None
    for name, weight in weights.items():
        weight.copy_(saved[name])
    return method.seconds(), accuracy


def floor(weights: int, method: Timed, length: int, device: torch.device) -> dict[str, float]:
    """Seconds that no implementation of our step's parts can beat here: the operations at the rate of large matrix
    products, or the bytes at that of a large copy, whichever takes longer.

    Gradients: forward, backward to the activations, and unfolding, of m examples. Accumulation: m outer products in
    each block, and the blocks read and written once a pass. Solving and update: B^3 operations in float64 for each of
    two inverses of each block, and the blocks read twice.
    """
    m, size = method.num_gradients, method.fisher_block_size
    passes = -(-m // method.gradient_batch_size)
    with exact_float32(device):
        single, double, memory = gemm_rate(device), gemm_rate(device, torch.float64), memory_rate(device)
    blocks = 4 * weights * size
    parts = {
        "gradients": (6 * weights * length * m / single, 4 * m * weights / memory),
        "accumulation": (2 * m * weights * size / single, (2 * passes * blocks + 4 * m * weights) / memory),
        "solving and update": (2 * weights * size**2 / double, 2 * blocks / memory),
    }
    return {name: max(times) for name, times in parts.items()} | {"step": sum(max(times) for times in parts.values())}


def compare(case: Case, ours: dict[str, Any], gradients: int, sparsity: float, published_layers: int | None) -> dict:
    """Both procedures on one model, ours first."""
    method = Timed(gradients="per_example", gradient_batch_size=PASS, num_gradients=gradients, **ours)
    published = Timed(
        gradients="minibatch",
        gradient_batch_size=PUBLISHED_BATCH,
        num_gradients=gradients,
        solver="independent",
        dampening=PUBLISHED_DAMPENING,
        accumulation="sum" if published_layers else "recursion",
        recursion_layers=published_layers or 0,
    )
    sizes = [weight.numel() for weight in case.weights.values()]
    dense, count = case.evaluate() if case.evaluate else (None, None)
    seconds, accuracy = step(case, method, sparsity)
    published_seconds, published_accuracy = step(case, published, sparsity)
    recursion = published_seconds.pop("recursion")
    if published_layers:
        everywhere = recursion * sum(sizes) / sum(sizes[:published_layers])
        published_seconds["step"] += everywhere - published_seconds["accumulation"]
        published_seconds["accumulation"] = everywhere
    del seconds["recursion"]
    return {
        "speedup": published_seconds["step"] / seconds["step"],
        "dense_accuracy": dense,
        "accuracy": accuracy,
        "published_accuracy": published_accuracy,
        "n": count,
        "seconds": seconds,
        "published_seconds": published_seconds,
        "published_seconds_extrapolated": published_layers is not None,
        "published_layers": published_layers or len(sizes),
        "layers": len(sizes),
        "weights": sum(sizes),
        "sparsity": sparsity,
        "gradients": gradients,
        "published_examples": gradients * PUBLISHED_BATCH,
        "solver": method.solver,
        "block": method.fisher_block_size,
        "dampening": method.dampening,
        "published_dampening": published.dampening,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"), help="experiment of the task")
    parser.add_argument("--task", default="movie_reviews", help="one of the experiment's")
    parser.add_argument("--model", type=Path, help="folder of a fine-tuned model; the experiment's teacher by default")
    parser.add_argument("--random-bert-base", action="store_true", help="random weights and tokens: times, no accuracy")
    parser.add_argument("--gradients", type=int, default=1024, help="m")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--solver", help="ours; the method's default")
    parser.add_argument("--published-layers", type=int, help="time the recursion on so many weights only")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's default")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    ours = {"solver": arguments.solver} if arguments.solver else {}
    with contextlib.redirect_stdout(sys.stderr):
        if arguments.random_bert_base:
            case = random_case(BertConfig(), RANDOM_LENGTH, device)
        else:
            case = trained_case(arguments.config, arguments.task, arguments.model, device)
        found = compare(case, ours, arguments.gradients, arguments.sparsity, arguments.published_layers)
        if arguments.random_bert_base:
            method = Timed(gradient_batch_size=PASS, num_gradients=arguments.gradients)
            found["floor_seconds"] = floor(found["weights"], method, RANDOM_LENGTH, device)
    found |= environment(device)
    print(json.dumps(found) if arguments.json else show(found))


if __name__ == "__main__":
    main()
