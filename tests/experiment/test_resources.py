"""What jobs ask for: against figures that are worked out by hand, records, and what a run really takes."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from architectures.models import make
from planned import finish
from tables.examples import record

from obert.commands import check, resources
from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.experiment.reading import merge
from obert.experiment.resources import EVENT, ask, memory_parts, operations
from obert.experiment.sizes import BERT_BASE, DataSize, ModelSize, Sizes
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.foundation.memory import Allowance
from obert.foundation.nodes import ANY, SLURM, THIS, Node
from obert.records import record as records

SQUAD = DataSize(train=88_000, validation=10_800, sequences=1, tokens=170.0, longest=384)


@pytest.fixture
def results(root, tmp_path, monkeypatch):
    """An empty folder for results."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def config(results, tmp_path):
    """Writes a changed copy of an experiment's configuration."""

    def write(source="configs/smoke.yaml", **changes):
        content = merge(yaml.safe_load(Path(source).read_text(encoding="utf-8")), changes)
        path = tmp_path / "edited.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def paper_run():
    return Plan.load("configs/paper.yaml").find(
        "downstream", task="squad", recipe="obert_10_epochs", method="obert", sparsity=0.9, seed=42
    )


def test_memory_of_a_run_of_the_paper(results):
    """oBERT on BERT-base: 85 million weights in blocks of 50 take 50 floats each."""
    run = paper_run()
    sizes = Sizes()
    sizes.add_model(run.model, BERT_BASE)
    sizes.add_data(run, SQUAD)
    parts = memory_parts(run, sizes)
    blocks = 84_934_656 * 50 * 4 / 1e6
    assert blocks < parts[EVENT] < 1.1 * blocks
    assert parts["weights, gradients and optimiser"] == pytest.approx(16 * 109.48, rel=1e-3)
    # 16 features of 384 tokens; in each of 12 layers 17 tensors of 768 floats, and 12 heads' scores
    assert parts["activations"] == pytest.approx(16 * 384 * 12 * (4 * 17 * 768 + 10 * 12 * 384) / 1e6)
    asked = ask(run, sizes, on_gpu=False)
    assert sum(parts.values()) < asked.memory_mb < 1.4 * sum(parts.values())


def test_time_goes_by_steps_and_machine(results):
    run, sizes = paper_run(), Sizes()
    assert ask(run, sizes, on_gpu=False).minutes == run.stage.minutes  # nobody has counted
    sizes.add_data(run, SQUAD)
    on_cpu, on_gpu = ask(run, sizes, on_gpu=False), ask(run, sizes, on_gpu=True)
    # 10 epochs, forward twice (its teacher's too) and backward
    training = 10 * 88_000 * 170 * 8 * 84_934_656 / (20e9 * 8) / 60
    assert training < on_cpu.minutes < 1.6 * training
    assert on_gpu.minutes < on_cpu.minutes / 10
    assert (on_cpu.gpus, on_gpu.gpus) == (0, 1)
    assert on_gpu.memory_mb < on_cpu.memory_mb  # the Fisher is on the GPU
    assert on_gpu.gpu_memory_mb > 17_000


def test_another_attempt_asks_for_more(results):
    first = ask(paper_run(), Sizes(), on_gpu=False)
    assert first.again(1) == first
    assert first.again(2).memory_mb == round(1.5 * first.memory_mb)
    assert first.again(3).memory_mb == 2 * first.memory_mb
    assert first.again(3).minutes == 3 * first.minutes


def test_layers_that_are_dropped_take_nothing(results):
    half = BERT_BASE.with_layers(6)
    assert sum(half.parts["encoder"].values()) == sum(BERT_BASE.parts["encoder"].values()) / 2
    assert half.multiplied == BERT_BASE.multiplied / 2
    assert BERT_BASE.parameters - half.parameters == sum(half.parts["encoder"].values())
    shared = ModelSize.model_validate(
        {**BERT_BASE.model_dump(), "parts": {**BERT_BASE.parts, "encoder": {"a.0.b.0.w": 7}}}
    )
    assert shared.with_layers(6).parts["encoder"] == {"a.0.b.0.w": 7}


def write_record(run, seed, **changes):
    folder = run.folder.parent / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    spec = json.loads(json.dumps(run.specification))
    spec["key"]["seed"] = seed
    record = {
        "spec": spec,
        "environment": {"gpu": None},
        "costs": {"training_seconds": 6000.0},
        "peak_memory_mb": 10_000.0,
        "wall_time_seconds": 600.0,
        **changes,
    }
    (folder / "metrics.json").write_text(json.dumps(record))


def test_a_record_of_another_seed_says_what_a_run_takes(results):
    run = paper_run()
    guessed = ask(run, Sizes(), on_gpu=False)
    write_record(run, 7)
    known = ask(run, Sizes(), on_gpu=False)
    assert known.memory_mb == 13_800  # a quarter more, and Snakemake with the tracker
    assert known.minutes == 2 * 100 + 20  # 6,000 s, though the last process took 600 of them
    write_record(run, 7, environment={"gpu": "A100"})
    assert ask(run, Sizes(), on_gpu=False) == guessed
    write_record(run, 7, spec={**run.specification, "threads": 1})
    assert ask(run, Sizes(), on_gpu=False) == guessed
    (run.folder.parent / "seed7" / "metrics.json").write_text("{")
    assert ask(run, Sizes(), on_gpu=False) == guessed


def test_the_check_counts_what_estimates_are_made_from(config):
    plan = Plan.load(config())
    check.run(plan)
    sizes = Sizes.of(plan.experiment)
    run = plan.find("downstream", task="city_qa", method="obert")
    size, data = sizes.model_of(run), sizes.data_of(run)
    assert size.parameters == 31_328 and sum(size.parts["encoder"].values()) == size.multiplied == 16_384
    assert (data.train, data.sequences) == (64, 1) and 16 < data.tokens <= data.longest <= 64


HEAD_ALONE = {"recipe_overrides": {"city_qa": {"smoke_gradual": {"scope": {"encoder": False, "head": True}}}}}


@pytest.mark.parametrize("method", ["obert", "obd", "rigl", "wanda", "sparsegpt"])
def test_an_event_without_tensors_that_were_counted_takes_nothing(config, method):
    """The head alone is pruned, and of a model without a pooler no head is counted."""
    planned = Plan.load(config(**HEAD_ALONE)).find("downstream", task="city_qa", method="obert")
    run = replace(planned, method=registry.load("pruning", method)())
    sizes = Sizes()
    sizes.add_model(run.model, BERT_BASE.model_copy(update={"parts": {**BERT_BASE.parts, "head": {}}}))
    sizes.add_data(run, SQUAD)
    assert memory_parts(run, sizes)[EVENT] == 0
    assert operations(run, sizes).passes > 0


def test_the_check_counts_no_tensors_where_there_are_none(config, tmp_path):
    """ELECTRA has no pooler."""
    make("electra", tmp_path / "electra")
    said = check.run(Plan.load(config(model={"source": str(tmp_path / "electra")}, **HEAD_ALONE)))
    assert "task city_qa: " in said


def test_planning_imports_no_model_and_stays_cheap(root):
    program = """
import sys, time
from obert.experiment.plan import Plan
from obert.experiment.resources import Asks
from obert.foundation import registry
plan = Plan.load("configs/paper.yaml")
engines = [registry.load("engines", name) for name in registry.names("engines")]
asks = Asks(plan.experiment, False)
before = time.process_time()
found = [asks[run] for run in plan]
print(len(found), (time.process_time() - before) / len(found), "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, seconds, transformers = done.stdout.split()
    assert int(count) > 400 and transformers == "False"
    assert float(seconds) < 2e-3


def asked(path):
    plan = Plan.load(path)
    return resources.asks(plan, ())


def test_a_cluster_whose_nodes_are_too_small_is_told_before_anything_is_submitted(config):
    found = asked(config(benchmark={"threads": 8}))
    with pytest.raises(UserError, match=r"a machine of its own with 8 CPUs \(benchmark.threads\), .* has 2\. Lower"):
        resources.fit(found, SLURM, (Node(2, 10**6),))
    assert "asking for up to" in resources.fit(found, SLURM, (Node(2, 1000), Node(8, 10**6)))
    with pytest.raises(UserError, match=r"the largest node of the cluster has 8\.0 GB"):
        resources.fit(found, SLURM, (Node(8, 8000),))
    assert resources.fit(found, ANY, ())


def test_what_a_job_asks_for_counts_and_not_the_machine_that_plans(config):
    """A profile gives 3 GB to a run whose Fisher alone takes 12 (of the size of BERT-base: nobody has counted)."""
    found = asked(config())
    resources.fit(found, SLURM, (Node(8, 100_000),))
    small = {run: replace(each, memory_mb=3000) for run, each in found.items()}
    with pytest.raises(UserError, match=r"a pruning event needs .* its job asks for 3.0 GB.*fisher_memory \(GB\)"):
        resources.fit(small, SLURM, (Node(8, 100_000),))


def test_training_here_takes_the_cores_that_there_are(config, monkeypatch):
    monkeypatch.setattr(resources, "allowance", lambda: None)
    resources.fit(asked(config(threads=64)), THIS, (Node(2, 10**6),))


def test_a_container_is_given_less_memory_than_the_machine_has(config, monkeypatch):
    """An event of the size of BERT-base takes 12 GB: nobody has counted."""
    found, machine = asked(config()), (Node(8, 64 * 1024),)
    for limit in (None, 100 * 10**9, 60 * 10**9):
        monkeypatch.setattr(resources, "allowance", lambda limit=limit: limit and Allowance(limit, 0))
        assert "asking for up to" in resources.fit(found, THIS, machine)
    monkeypatch.setattr(resources, "allowance", lambda: Allowance(8 * 10**9, 0))
    with pytest.raises(UserError, match=r"container or job is given 8\.0 GB of this machine's 68\.7 GB.*fisher_memory"):
        resources.fit(found, THIS, machine)
    assert "asking for up to" in resources.fit(found, SLURM, machine), "its nodes are others"


def test_runs_that_are_made_again_are_checked_again(config, monkeypatch):
    """A larger model in the same file: all records are there, and none is of these runs."""
    monkeypatch.setattr(resources, "allowance", lambda: None)
    plan = Plan.load(config())
    found = resources.asks(plan, ())
    models = {run.model: SimpleNamespace(network=SimpleNamespace(num_parameters=lambda: 2 * 10**7)) for run in plan}
    for run in plan:
        finish(run)
    assert resources.fit(found, THIS, (Node(8, 1),)) == "jobs: none left"
    assert check._check_disk(plan, models).startswith("disk: about 0.0 GB needed")
    for run in plan.of_stage("teacher"):
        records.write_record(run.folder, record(run.key.stage, spec_hash="0" * 64))
    with pytest.raises(UserError, match=r"this machine has 0\.0 GB"):
        resources.fit(found, THIS, (Node(8, 1),))
    assert not check._check_disk(plan, models).startswith("disk: about 0.0 GB needed")


def test_memory_here_is_compared_in_one_unit(config, monkeypatch):
    """A machine's is in units of 2^20 bytes, a run's in 10^6: 5 % of 12 GB are much."""
    monkeypatch.setattr(resources, "allowance", lambda: None)
    found = asked(config())
    most = max(each.surely_mb for each in found.values())
    resources.fit(found, THIS, (Node(8, math.ceil(most * 1e6 / 2**20)),))
    with pytest.raises(UserError, match="this machine has"):
        resources.fit(found, THIS, (Node(8, math.floor(most * 1e6 / 2**20)),))


def test_a_killed_run_is_told_what_it_takes(config, capsys):
    path = config()
    run = Plan.load(path).find("downstream", task="city_qa", method="obert")
    command = ["resources", "--config", path, "--stage", "downstream", *run.key.arguments.split(), "--asked-mb", "3000"]
    assert main([*command, "--killed", "137"]) == 0
    said = capsys.readouterr().out
    assert "ended by SIGKILL" in said and "asked for 3.0 GB" in said and "pruning event 11.6" in said
    assert "set methods.obert.fisher_memory (GB)" in said and "next attempt asks for more" in said
    assert main([*command, "--killed", "143"]) == 0
    assert "ended by SIGTERM. The next attempt goes on from its last checkpoint" in capsys.readouterr().out


def test_the_table_has_a_row_for_runs_alike(config, capsys):
    assert main(["resources", "--config", config(seeds=[0, 1, 2]), "--nodes", "this", "--stage", "downstream"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(row for row in rows if row[:4] == ["downstream", "city_qa", "smoke_gradual", "obert"])
    assert row[4:7] == ["3", "1", "0"]
    assert {row[0] for row in rows[2:]} == {"downstream"}
