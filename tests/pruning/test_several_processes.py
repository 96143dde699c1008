"""Two processes that share the tensors among them end with exactly the masks and weights of one process alone.

Run as a program, this file is one of the processes: rank, file to meet at, file for the results.
"""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from pydantic import PrivateAttr

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.pruning import prune_event
from obert.pruning.obert import OptimalBertSurgeon
from obert.second_order.gradients import DenseGradients

CASES = {
    "independent": ("unstructured", {"solver": "independent"}),
    "minibatches": ("unstructured", {"gradients": "minibatch", "num_gradients": 8, "fisher_block_size": 70}),
    "joint, half of each pair": ("1:2", {"solver": "joint", "recomputations": 2}),
    "greedy, pairs, in two passes": ("1x2", {"solver": "greedy", "fisher_memory": 3e-6}),
}
PARAMETERS = {"num_gradients": 40, "gradients": "per_example", "gradient_batch_size": 16, "dampening": 1e-3}


class Recording(OptimalBertSurgeon):
    """Keeps the names of the tensors whose gradients this process has drawn."""

    _drawn: set = PrivateAttr(default_factory=set)

    def draw(self, context, names):
        self._drawn.update(names)
        yield from super().draw(context, list(names))


class Broken(Recording):
    """One tensor's gradients are not finite."""

    def draw(self, context, names):
        for name, gradients in super().draw(context, list(names)):
            broken = DenseGradients(torch.full((1, 8, 6), float("nan")))
            yield name, broken if name == "0.weight" else gradients


def results(setting_of):
    """After two events of each case: masks, weights, predicted loss increases, and the tensors of this process."""
    torch.set_num_threads(1)
    found = {}
    for case, (pattern, changes) in CASES.items():
        setting = setting_of()
        # A third prunable tensor, so that the shares are of different sizes.
        setting.layers["4.weight"] = setting.model[4]
        setting.masks["4.weight"] = torch.ones_like(setting.model[4].weight, dtype=torch.bool)
        if pattern != "unstructured":
            del setting.layers["4.weight"], setting.masks["4.weight"]  # its rows are of seven
        method = Recording(**PARAMETERS | {"fisher_block_size": 10} | changes)
        increases = []
        for sparsity in (0.25, 0.5):
            context = replace(setting.context(), pattern=Pattern.parse(pattern))
            done = prune_event(method, context, sparsity)
            setting.masks = done.masks
            increases.append(done.predicted_loss_increase)
        weights = {name: layer.weight.detach() for name, layer in setting.layers.items()}
        found[case] = {"masks": setting.masks, "weights": weights, "increases": increases, "drawn": method._drawn}
    with pytest.raises(UserError) as mistake:
        setting_of().prune(Broken(**PARAMETERS), 0.5)
    return found | {"mistake": str(mistake.value)}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes has found, all cases in one run."""
    folder = tmp_path_factory.mktemp("processes")
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder / "meeting"), str(folder / f"{rank}.pt")],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | loopback,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            printed, _ = process.communicate(timeout=180)
            assert process.returncode == 0, printed
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def alone(setting_of):
    return results(setting_of)


def test_masks_weights_and_predictions_are_those_of_one_process(alone, two_processes):
    for case in CASES:
        expected = alone[case]
        for found in (rank[case] for rank in two_processes):
            assert found["increases"] == expected["increases"], case
            for kind in ("masks", "weights"):
                assert list(found[kind]) == list(expected[kind])
                for name, values in expected[kind].items():
                    assert torch.equal(found[kind][name], values), (case, kind, name)


def test_each_process_takes_the_gradients_of_its_own_share(alone, two_processes):
    for case in CASES:
        expected = alone[case]
        first, second = (rank[case]["drawn"] for rank in two_processes)
        assert first
        assert second
        assert not first & second
        assert first | second == expected["drawn"] == set(expected["masks"])


def test_a_mistake_in_one_process_is_told_by_all(alone, two_processes):
    for found in (alone, *two_processes):
        assert "gradients of tensor '0.weight' are not finite" in found["mistake"]


def main(rank: int, meeting: Path, output: Path) -> None:
    from obert.contracts.small_network import SmallNetwork

    dist.init_process_group(
        "gloo", init_method=meeting.as_uri(), rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    torch.save(results(SmallNetwork), output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
