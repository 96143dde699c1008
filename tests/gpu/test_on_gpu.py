"""The numerical rooms, a training step and the 2:4 kernels on a GPU, against the CPU."""

import copy

import pytest
import torch
from events import OBERT, SMALL, TINY, masks_of
from samples import with_new_head
from transformers import BertConfig, BertForSequenceClassification
from waiting import SEEDS, gradual_steps, start

from obert.deployment.latency import random_inputs
from obert.engines import ModelFiles
from obert.engines.semi_structured import SemiStructured, is_2_4, seconds_of_layers
from obert.experiment.recipes import load_method, load_task
from obert.foundation import registry
from obert.heads.question_answering import QuestionAnswering
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.patterns import Pattern, parse_pattern
from obert.masks.selection import dense_masks, global_masks, uniform_masks
from obert.models.encoders import load_tokenizer, prunable_layers, prunable_weights, save
from obert.quantization.fake import quantize
from obert.second_order import solvers
from obert.second_order.fisher import BlockFisher, RecursiveFisher, spd_inverse
from obert.second_order.gradients import DenseGradients
from obert.training.features import Features
from obert.training.prediction import predict_logits
from obert.training.pruner import Pruner

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
STRAY = 0.002  # fraction of masks that rounding may turn around at the cut


def assert_agreeing(method, gpu, pattern="unstructured"):
    expected, _ = masks_of(copy.deepcopy(method), lambda network: network, CPU, pattern)
    found, weights = masks_of(method, lambda network: network.to(gpu), gpu, pattern)
    assert all(mask.device == weights[name].device == gpu for name, mask in found.items())
    assert all((weights[name][~mask] == 0).all() for name, mask in found.items())
    size = sum(mask.numel() for mask in found.values())
    assert sum(int((~mask).sum()) for mask in found.values()) == round(0.5 * size)
    differing = sum(int((found[name].cpu() != mask).sum()) for name, mask in expected.items())
    assert differing <= STRAY * size


@pytest.mark.parametrize("name", registry.names("pruning"))
def test_a_method_prunes_as_on_the_cpu(name, gpu):
    assert_agreeing(load_method(name, SMALL.get(name, {}), "test"), gpu)


@pytest.mark.parametrize("case", OBERT)
def test_solvers_patterns_and_accumulations(case, gpu):
    pattern, changes = OBERT[case]
    assert_agreeing(load_method("obert", SMALL["obert"] | changes, "test"), gpu, pattern)


@pytest.mark.parametrize("solver", ["independent", "joint", "greedy"])
@pytest.mark.parametrize("pattern", ["unstructured", "1x4", "2:4"])
def test_a_solver_gives_the_cpus_scores_and_changes(solver, pattern, gpu):
    """From the same sums, in float64: no rounding of float32 products between them."""
    pattern, generator = parse_pattern(pattern), torch.Generator().manual_seed(0)
    masks = {"w": torch.rand(64, 96, generator=generator).view(-1, 4).gt(0.3).all(1, keepdim=True).expand(-1, 4)}
    masks = {"w": masks["w"].reshape(64, 96).contiguous()}
    weights = torch.randn(64, 96, generator=generator) * masks["w"]
    gradients = DenseGradients(torch.randn(80, 64, 96, generator=generator))
    fisher = BlockFisher(masks, 48, 1e-3)
    fisher.add("w", gradients)
    results = []
    for device in (CPU, gpu):
        own = copy.deepcopy(fisher)
        own.masks = {"w": masks["w"].to(device)}
        own._blocks = {"w": fisher._blocks["w"].to(device)}
        flat, scores = weights.flatten().double().to(device), torch.zeros(64 * 96, dtype=torch.float64, device=device)
        changes = torch.zeros_like(scores)
        for slab in own.slabs("w", pattern.size):
            at = slab.positions
            scores[at], multipliers = solvers.scores(solver, slab, flat[at] * slab.kept, pattern, "w")
            pruned = slab.kept & (at % (2 * pattern.size) < pattern.zeros)
            changes[at], _ = solvers.update(solver, slab, flat[at] * slab.kept, pruned, multipliers, "w")
        results.append((scores.cpu(), changes.cpu()))
    for found, expected in zip(results[1], results[0], strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_sum_and_recursion_give_one_inverse(gpu):
    masks = {"w": torch.ones(60, 50, dtype=torch.bool, device=gpu)}
    gradients = DenseGradients(torch.randn(200, 60, 50, generator=torch.Generator().manual_seed(0)).to(gpu))
    summed, recursion = BlockFisher(masks, 50, 1e-2), RecursiveFisher(masks, 50, 1e-2, 200)
    for fisher in (summed, recursion):
        fisher.add("w", gradients)
    inverses = torch.cat([spd_inverse(slab.fisher, "w") for slab in summed.slabs("w")])
    torch.testing.assert_close(recursion.inverse("w").double(), inverses, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_with_distillation_holds_masks_learns_and_waits_for_nothing(precision, gpu, root, tmp_path):
    """Gradual steps with a teacher, in some of which CUDA itself refuses to be waited for."""
    network, data = start()
    before = network.classifier.weight.detach().clone()

    def watch(mode):
        if gpu.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)

    method = load_method("obert", SMALL["obert"], "test")
    try:
        trainer = gradual_steps(
            network, data, method, tmp_path, lambda: watch("error"), lambda: watch("default"), precision=precision
        )
    finally:
        watch("default")
    assert len(trainer.curves()) == trainer.state.global_step == 12
    assert not torch.equal(network.classifier.weight.cpu(), before)
    zeros = [weight == 0 for weight in prunable_weights(network).values()]
    assert sum(int(z.sum()) for z in zeros) == round(0.5 * sum(z.numel() for z in zeros))
    logits = predict_logits(network, data, 16)
    assert logits[0].device == CPU
    assert torch.isfinite(logits[0]).all()


def test_masks_of_a_checkpoint_are_read_back_on_the_device(gpu, root, tmp_path):
    network, data = start()
    pruner = Pruner(network.to(gpu), load_method("obert", SMALL["obert"], "test"), data, SEEDS, Pattern())
    pruner.prune(0.5)
    masks = {name: mask.clone() for name, mask in pruner.masks.items()}
    pruner.save(tmp_path)
    pruner.load(tmp_path)
    assert all(mask.device == gpu and torch.equal(mask, masks[name]) for name, mask in pruner.masks.items())


def test_predictions_are_those_of_the_cpu(gpu, root):
    torch.manual_seed(0)
    network, tokenizer = with_new_head(TINY, QuestionAnswering()), load_tokenizer(TINY)
    task = load_task("squad", {"source": "tests/data/city_qa", "max_length": 64, "doc_stride": 16}, "test")
    data = Features.encode(task, task.load()["validation"], tokenizer)
    expected = predict_logits(network, data, 16)
    for found, own in zip(predict_logits(network.to(gpu), data, 16), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)


def test_a_quantised_model_is_that_of_the_cpu(gpu):
    torch.manual_seed(0)
    network = quantize(with_new_head(TINY, SequenceClassification())).eval()
    other = copy.deepcopy(network).to(gpu)
    tokens = torch.randint(5, 280, (8, 24), generator=torch.Generator().manual_seed(0))
    expected, found = network(input_ids=tokens).logits, other(input_ids=tokens.to(gpu)).logits
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in other.parameters() if p.grad is not None)
    # A value at the edge of a step of 1/255 may be rounded to its other side.
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=0, atol=0.02)


def test_masks_of_equal_scores_are_the_first_in_order(gpu):
    scores = {"a": torch.zeros(8, 8, device=gpu), "b": torch.ones(8, 8, device=gpu)}
    masks = global_masks(scores, dense_masks(scores), 0.25)
    assert torch.equal(masks["a"].flatten().cpu(), torch.arange(64) >= 32)
    assert masks["b"].all()


def test_semi_structured_kernels_give_the_dense_logits(gpu, tmp_path):
    if gpu.type == "cpu":
        pytest.skip("the kernels need a GPU")
    assert SemiStructured.unavailable_reason() is None
    torch.manual_seed(0)
    config = BertConfig(hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512)
    network = BertForSequenceClassification(config).eval()
    weights = prunable_weights(network)
    masks = uniform_masks({n: w.abs() for n, w in weights.items()}, dense_masks(weights), 0.5, Pattern.parse("2:4"))
    for name, weight in weights.items():
        weight.mul_(masks[name])
    assert all(is_2_4(weight) for weight in weights.values())
    save(network, load_tokenizer(TINY), tmp_path)
    files = ModelFiles(tmp_path / "none.onnx", tmp_path, SequenceClassification())
    assert SemiStructured.unfit_reason(files) is None
    engine = SemiStructured(files, 1)
    for batch, length in ((1, 7), (3, 40)):
        inputs = random_inputs(config.vocab_size, batch, length, 0)
        expected = network(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits
        found = torch.from_numpy(engine.run(inputs)[0])
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=engine.tolerance)
        assert engine.linear_seconds(inputs) > 0
    sparse = [layer.weight for layer in prunable_layers(engine._network).values()]
    assert all(type(weight.data) is not torch.Tensor for weight in sparse)
    assert seconds_of_layers({}, lambda: None) == 0
