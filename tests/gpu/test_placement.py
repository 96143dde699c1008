"""Every method, and what training adds to a step, on a pretended GPU: the CPU's masks to the last bit, and no tensor on
the wrong device."""

import ast
import copy

import pytest
import torch
from events import OBERT, SMALL, TINY, masks_of
from pretended import GPU, PACKAGE, REACHED, OnGpu, PretendedGpu, move
from samples import with_new_head
from torch import nn

from obert import GradualPruner, prune
from obert.experiment.recipes import load_method, load_task
from obert.foundation import registry
from obert.foundation.memory import free_memory
from obert.heads.distillation import distillation_losses
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.holding import FixedPattern
from obert.models.loading import load_tokenizer
from obert.quantization.fake import quantize
from obert.second_order.fisher import spd_inverse
from obert.training.features import Features
from obert.training.prediction import predict_logits

CPU = torch.device("cpu")
BLOCKS = {"num_gradients": 32, "fisher_block_size": 16, "dampening": 1e-5}
OF_DEVICES = ("device", "to", "cuda", "is_cuda", "pin_memory")  # what names a device in code
TRAINED = "the Trainer asks torch for a GPU itself: tests/gpu/part_training.py trains on a real one"
SEVERAL = "several processes: nccl has no pretended form, tests/stages trains on gloo"
NOT_COVERED = {
    "compression/draft.py": TRAINED,
    "commands/check.py": "prints the GPU's name",
    "engines/semi_structured.py": "its kernels are CUTLASS's: tests/gpu/part_kernels.py",
    "foundation/memory.py": "asks the driver: test_memory_that_torch_has_cached_is_free has its answers pretended",
    "foundation/processes.py": SEVERAL,
    "library/holding.py": "masks follow a model that moves: a pretended move is a new model",
    "library/inspection.py": "refuses all subclasses of torch.Tensor, so this one too",
    "models/architecture.py": "the device is `meta`",
    "models/positions.py": "the device is `meta`",
    "pruning/shared/process_shares.py": SEVERAL,
    "records/provenance.py": "asks the driver for the GPU's name",
    "second_order/compiled.py": "for CPUs alone: a GPU has the batched way",
    "stages/_trained.py": TRAINED,
    "training/checkpoints.py": TRAINED,
    "training/padding.py": TRAINED,
    "training/pruner.py": TRAINED,
    "training/trainer.py": TRAINED,
}


@pytest.fixture(autouse=True)
def _memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 34, 1 << 35))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 30)


def assert_same(method, pattern="unstructured"):
    expected = masks_of(method, lambda network: network, CPU, pattern)
    with PretendedGpu():
        found = masks_of(copy.deepcopy(method), move, GPU, pattern)
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        assert all(isinstance(own[name], OnGpu) for name in own)
        assert all(torch.equal(own[name].as_subclass(torch.Tensor), other[name]) for name in own)
    zeros = sum(int((~mask).sum()) for mask in expected[0].values())
    assert zeros == round(0.5 * sum(mask.numel() for mask in expected[0].values()))


@pytest.mark.parametrize("name", registry.names("pruning"))
def test_a_method_prunes_there_what_it_prunes_here(name):
    assert_same(load_method(name, SMALL.get(name, {}), "test"))


@pytest.mark.parametrize("case", OBERT)
def test_solvers_patterns_and_accumulations(case):
    pattern, changes = OBERT[case]
    assert_same(load_method("obert", SMALL["obert"] | changes, "test"), pattern)


def test_inverses_by_triangular_solutions_are_those_of_the_cpu():
    """The branch that a GPU takes, which the pretended one takes too."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(7, 50, 80, generator=generator, dtype=torch.float64)
    matrices = torch.bmm(factor, factor.mT)
    with PretendedGpu():
        found = spd_inverse(matrices.to(GPU), "w").cpu()
    torch.testing.assert_close(torch.bmm(found, matrices), torch.eye(50, dtype=torch.float64).expand(7, -1, -1))


def test_tokens_to_predict_are_the_same():
    task = load_task("mlm", {"source": "tests/data/mlm", "max_length": 32}, "test")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(TINY)
    batch = {"input_ids": torch.randint(5, 280, (4, 32), generator=torch.Generator().manual_seed(0))}
    expected = task.prepare_batch(batch, tokenizer, torch.Generator().manual_seed(1))
    with PretendedGpu():
        moved = {name: value.to(GPU) for name, value in batch.items()}
        found = task.prepare_batch(moved, tokenizer, torch.Generator().manual_seed(1))
        for name, value in expected.items():
            assert isinstance(found[name], OnGpu)
            assert torch.equal(found[name].cpu(), value)


def test_distillation_and_question_answering():
    task = load_task("squad", {"source": str(TINY)}, "test")
    logits = tuple(torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0)))
    batch = {"start_positions": torch.tensor([0, 4, 99]), "end_positions": torch.tensor([0, 5, 99])}
    with PretendedGpu():
        there = tuple(x.to(GPU) for x in logits)
        losses = task.head.losses(there, {name: value.to(GPU) for name, value in batch.items()})
        distilled = distillation_losses(there, there[::-1], 2.0)
        assert torch.equal(losses.cpu(), task.head.losses(logits, batch))
        assert torch.equal(distilled.cpu(), distillation_losses(logits, logits[::-1], 2.0))


def test_a_pattern_of_zeros_is_held_and_checked():
    weights = {"w": torch.tensor([0.0, 1.0, 0.0, 2.0])}
    pattern = FixedPattern(weights)
    with PretendedGpu():
        trained = {"w": torch.full((4,), 3.0).to(GPU)}
        pattern.hold(trained)
        assert pattern.check(trained, "here") == {"zeros_before": 2, "zeros_kept": 2}


def test_a_quantised_model_runs_there():
    torch.manual_seed(0)
    network = quantize(with_new_head(TINY, SequenceClassification())).eval()
    tokens = torch.randint(5, 280, (2, 9), generator=torch.Generator().manual_seed(0))
    other = move(copy.deepcopy(network))
    expected = network(input_ids=tokens).logits
    with PretendedGpu():
        found = other(input_ids=tokens.to(GPU)).logits
        found.sum().backward()
    assert torch.equal(found.detach().as_subclass(torch.Tensor), expected)


def test_memory_that_torch_has_cached_is_free():
    assert free_memory(GPU) == (1 << 34) + (2 << 30)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with PretendedGpu():
        here, there = torch.ones(3), torch.ones(3, device=GPU)
        assert there.device == GPU
        assert (there * 2).device == (there + torch.tensor(1.0)).device == GPU
        assert there[torch.tensor([0, 2])].shape == (2,)
        assert there.cpu().device == here.device == CPU
        assert there.cpu().numpy().sum() == 3
        for mistake in (
            lambda: there + here,
            lambda: torch.stack([here, there]),
            lambda: here[there.long()],
            lambda: torch.randperm(3, generator=torch.Generator(), device=GPU),
        ):
            with pytest.raises(RuntimeError, match="CPU"):
                mistake()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))


def small_batches(device):
    generator = torch.Generator().manual_seed(1)
    made = [(torch.randn(8, 16, generator=generator), torch.randint(8, (8,), generator=generator)) for _ in range(8)]
    return [tuple(value.to(device) for value in batch) for batch in made]


@pytest.mark.parametrize("method", ["magnitude", "obert", "wanda"])
def test_the_library_prunes_there_what_it_prunes_here(method, monkeypatch):
    settings = {"obert": BLOCKS, "wanda": {"examples": 16}}.get(method, {})
    given = {"sparsity": 0.5, "method": method, "loss": cross_entropy, **settings}
    here = small_network()
    expected = prune(here, batches=small_batches(CPU), **given)
    monkeypatch.setattr("obert.library.prune.check_layers", lambda *_: None)
    with PretendedGpu():
        there = move(small_network())
        found = prune(there, batches=small_batches(GPU), **given)
        assert all(isinstance(mask, OnGpu) for mask in found.masks.values())
        assert all(torch.equal(found.masks[name].cpu(), mask) for name, mask in expected.masks.items())
        assert all(torch.equal(a.detach().cpu(), b) for a, b in zip(there.parameters(), here.parameters(), strict=True))


@pytest.mark.parametrize("method", ["obert", "movement", "platon", "prune_ofa"])
def test_gradual_pruning_in_a_loop_is_the_same_there(method, monkeypatch):
    settings = {"obert": BLOCKS, "platon": {"window": 2}}.get(method, {})

    def train(model, batches):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        needed = {"batches": batches, "loss": cross_entropy} if method == "obert" else {}
        pruner = GradualPruner(model, {3: 0.3, 6: 0.6}, method, optimizer=optimizer, **needed, **settings)
        for batch in batches:
            (cross_entropy(model, batch).mean() + pruner.penalty()).backward()
            optimizer.step()
            pruner.step()
            optimizer.zero_grad()
        pruner.finish()
        return [parameter.detach() for parameter in model.parameters()]

    expected = train(small_network(), small_batches(CPU))
    monkeypatch.setattr("obert.library.gradual.check_layers", lambda *_: None)
    with PretendedGpu():
        found = train(move(small_network()), small_batches(GPU))
        assert all(torch.equal(own.cpu(), other) for own, other in zip(found, expected, strict=True))


def test_predictions_are_the_same_there():
    task = load_task("movie_reviews", {"source": "tests/data/movie_reviews", "max_length": 16}, "test")
    network = with_new_head(TINY, SequenceClassification())
    data = Features.encode(task, task.load()["validation"], load_tokenizer(TINY))
    [expected] = predict_logits(network, data, 8)
    with PretendedGpu():
        [found] = predict_logits(move(network), data, 8)
    assert not isinstance(found, OnGpu) and torch.equal(found, expected)


def names_a_device(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return bool(used & set(OF_DEVICES)) or any(isinstance(n, ast.keyword) and n.arg == "device" for n in nodes)


def test_what_could_not_be_covered_is_listed(request):
    """Last in this file: every file that names a device has computed on the pretended one, or has its reason."""
    of_this_file = [item for item in request.session.items if item.path == request.path]
    if request.session.config.option.keyword or len(of_this_file) < 20:
        pytest.skip("only some of this file's tests were run")
    naming = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if names_a_device(path)}
    assert naming - REACHED == NOT_COVERED.keys()
