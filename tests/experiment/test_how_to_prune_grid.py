"""`configs/how_to_prune.yaml` lists every run of a faithful study: how-to-prune.md, section 5, T1 to T7."""

from collections import Counter

import pytest

from obert.experiment.plan import Plan

SMC_LEVELS = (0.2, 0.36, 0.488, 0.59, 0.672, 0.738, 0.791, 0.8325, 0.866, 0.893)
LADDER_LEVELS = (0.59, 0.738, 0.893)
PARTS = (0.5, 0.7, 0.8, 0.9)
CSQA, WINOGRANDE, RACE, SQUAD = "commonsense_qa", "winogrande", "race", "squad"
SUFFIX = {CSQA: "csqa", WINOGRANDE: "winogrande", RACE: "race"}
# Weights of the three parts: 24 layers of 1024 and 4096, tables of 50,265 + 514 + 1 rows, pooler and one output; 12
# layers of 768 and 3072, tables of 30,522 + 512 + 2 rows, and two outputs.
LARGE = (24 * (4 * 1024**2 + 2 * 1024 * 4096), 1024 * (50265 + 514 + 1), 1024**2 + 1024)
BASE = (12 * (4 * 768**2 + 2 * 768 * 3072), 768 * (30522 + 512 + 2), 2 * 768)


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(__file__.rpartition("/tests/")[0])
        return Plan.load("configs/how_to_prune.yaml")


def runs_of(plan, recipe, task, method=None):
    """Number of a recipe's runs on a task by sparsity, of one method or of all."""
    return Counter(
        run.key.sparsity
        for run in plan.of_stage("downstream")
        if run.key.lineage == (recipe,) and run.key.task == task and method in (None, run.key.method)
    )


def at(sparsities, runs):
    return dict.fromkeys(sparsities, runs)


@pytest.mark.parametrize(
    ("task", "seeds", "methods"),
    [
        (CSQA, 3, ("lth", "omp_before", "omp_after", "random_before", "random_after", "snip", "rigl", "obert")),
        (WINOGRANDE, 3, ("gmp", "lth", "omp_before", "omp_after", "random_before", "random_after", "snip", "rigl")),
        (RACE, 1, ("gmp", "lth", "omp_before", "omp_after", "random_before", "random_after", "snip", "rigl")),
    ],
)
def test_methods_of_smc_bench_are_run_at_its_ten_sparsities(plan, task, seeds, methods):
    """oBERT on CommonsenseQA alone; GMP there has the ladder's two further seeds at three sparsities."""
    found = {run.key.lineage[0] for run in plan.of_stage("downstream") if run.key.task == task}
    of_smc = {f"smc_{method}_{SUFFIX[task]}" for method in methods}
    assert {name for name in found if name.startswith("smc")} - {"smc_gmp_csqa"} == of_smc
    for recipe in of_smc:
        assert runs_of(plan, recipe, task) == at(SMC_LEVELS, seeds)


def test_the_ladder_and_what_is_left_out(plan):
    """Five seeds; at 69.36 and 86.76 % the encoder has the zeros of SMC-Bench's whole model at 59 and 73.8 %."""
    assert runs_of(plan, "smc_gmp_csqa", CSQA) == at(SMC_LEVELS, 3) | at(LADDER_LEVELS, 5)
    equal_zeros = (0.6936, 0.8676)
    assert runs_of(plan, "ladder_scope_large", CSQA) == at((*LADDER_LEVELS, *equal_zeros), 5)
    for method in ("magnitude", "obert"):
        for recipe in ("guidelines_large_without_distillation", "guidelines_large_without_schedule"):
            assert runs_of(plan, recipe, CSQA, method) == at((*LADDER_LEVELS, *equal_zeros), 5)
        found = runs_of(plan, "guidelines_large", CSQA, method)
        assert {s: found[s] for s in (*LADDER_LEVELS, *equal_zeros)} == at((*LADDER_LEVELS, *equal_zeros), 5)
        found = runs_of(plan, "guidelines_large_without_scope", CSQA, method)
        assert {s: found[s] for s in LADDER_LEVELS} == at(LADDER_LEVELS, 5)


def test_guidelines_at_smc_benchs_sparsities_of_the_encoder_and_at_as_many_zeros(plan):
    """The two highest sparsities of the whole model are more than all of the encoder, 85.06 %."""
    encoder, whole = LARGE[0], sum(LARGE)
    assert round(encoder / whole, 4) == 0.8506
    equal_zeros = tuple(round(s * whole / encoder, 4) for s in SMC_LEVELS if s * whole < encoder)
    assert len(equal_zeros) == 8
    for method in ("magnitude", "obert"):
        assert runs_of(plan, "guidelines_large", WINOGRANDE, method) == at((*SMC_LEVELS, *equal_zeros), 3)
        found = runs_of(plan, "guidelines_large", CSQA, method)
        assert all(found[s] >= 3 for s in (*SMC_LEVELS, *equal_zeros))
    assert runs_of(plan, "guidelines_large", RACE) == at(LADDER_LEVELS, 1)


@pytest.mark.parametrize(("name", "task", "parts"), [("large", CSQA, LARGE), ("classic", SQUAD, BASE)])
def test_parts_at_the_same_sparsity_of_the_encoder_and_at_as_many_zeros(plan, name, task, parts):
    for pruned in ("_with_embeddings", "_with_head", "_with_both", "_without_scope", ""):
        found = runs_of(plan, f"guidelines_{name}{pruned}", task, "magnitude")
        assert {s: found[s] for s in PARTS} == at(PARTS, 3)
    equal_zeros = [round(s * sum(parts) / parts[0], 4) for s in PARTS if s * sum(parts) < parts[0]]
    assert equal_zeros == {CSQA: [0.5878, 0.823, 0.9405], SQUAD: [0.6403, 0.8965]}[task]
    found = runs_of(plan, f"guidelines_{name}", task, "magnitude")
    assert [found[s] for s in equal_zeros] == [3] * len(equal_zeros)


def test_rules_of_the_number_of_cycles(plan):
    """ln(1 - s) / ln(0.8) is 4, 6, 10 and 13.4; 11 s is 6.5, 8.1, 9.8 and 10.5; the mean of 5, 7, 11 and 15 is 9.5."""
    expected = {
        "guidelines_large": (5, 7, 11, 15),
        "guidelines_large_one_cycle": (1, 1, 1, 1),
        "guidelines_large_five_cycles": (5, 5, 5, 5),
        "guidelines_large_linear": (8, 10, 11, 12),
        "guidelines_large_longest": (15, 15, 15, 15),
        "guidelines_large_mean": (10, 10, 10, 10),
    }
    for recipe, cycles in expected.items():
        found = {
            run.key.sparsity: run.recipe.training.epochs / run.recipe.scaling.unit_epochs
            for run in plan.of_stage("downstream")
            if run.key.lineage == (recipe,) and (run.key.task, run.key.method) == (CSQA, "magnitude")
        }
        assert [found[s] for s in (*LADDER_LEVELS, 0.95)] == pytest.approx(cycles)
        if recipe != "guidelines_large":
            assert runs_of(plan, recipe, CSQA) == at((*LADDER_LEVELS, 0.95), 3)


def test_classic_tasks(plan):
    levels = (0.8, 0.9, 0.97)
    for method in ("magnitude", "obert"):
        for task in ("mnli", "qqp"):
            assert runs_of(plan, "guidelines_classic", task, method) == at(levels, 3)
        found = runs_of(plan, "guidelines_classic", SQUAD, method)
        assert {s: found[s] for s in levels} == at(levels, 3)


def test_dense_schedules_of_the_tasks(plan):
    """3000 updates of 9741 questions in batches of 16, 23,750 of 40,398 in batches of 32, RACE's three epochs."""
    found = {
        run.key.task: run.recipe
        for run in plan.of_stage("downstream")
        if run.key.lineage[0] in ("guidelines_large", "guidelines_classic")
    }
    steps = {CSQA: -(-9741 // 16), WINOGRANDE: -(-40398 // 32), RACE: -(-87866 // 16)}
    units = {CSQA: 3000 / steps[CSQA], WINOGRANDE: 23750 / steps[WINOGRANDE], RACE: 3, SQUAD: 2, "mnli": 2, "qqp": 2}
    assert {task: recipe.scaling.unit_epochs for task, recipe in found.items()} == pytest.approx(units, abs=1e-4)
    warmups = {CSQA: 150, WINOGRANDE: 2375, RACE: 500}
    for task, updates in warmups.items():
        assert found[task].training.learning_rate.warmup_epochs * steps[task] == pytest.approx(updates, abs=0.5)


def test_encoders_and_teachers(plan):
    for run in plan:
        large = run.key.task in SUFFIX
        assert run.model.source == ("FacebookAI/roberta-large" if large else "google-bert/bert-base-uncased")
    for task, suffix in SUFFIX.items():
        assert plan.teacher(task).key.recipe == f"smc_dense_{suffix}"
    dense = Counter(run.key.lineage for run in plan.of_stage("transfer"))
    assert dense == {("smc_dense_seeds_csqa", "pretrained"): 5, ("smc_dense_seeds_winogrande", "pretrained"): 3}


def test_a_dense_run_of_another_seed_is_trained_as_the_teacher(plan):
    for run in plan.of_stage("transfer"):
        assert run.recipe.training == plan.teacher(run.key.task).recipe.training


def test_dense_schedules_that_the_study_takes(plan):
    """SMC-Bench's sparsities have 2 to 11 cycles, together 65; those with as many zeros 3, 4, 5, 7, 8, 11, 13 and 19,
    together 70. Its seven other methods have one each, at ten sparsities; on RACE the ladder's three have 5, 7 and 11.
    """

    def dense(task, of_smc):
        unit = plan.teacher(task).recipe.training.epochs
        runs = [run for run in plan.of_stage("downstream") if run.key.task == task]
        chosen = [run for run in runs if run.key.recipe.startswith("smc_") is of_smc]
        return sum(run.recipe.training.epochs for run in chosen) / unit

    assert dense(WINOGRANDE, of_smc=True) == pytest.approx(3 * (65 + 7 * 10), rel=1e-4)
    assert dense(RACE, of_smc=True) == pytest.approx(65 + 7 * 10, rel=1e-4)
    assert dense(CSQA, of_smc=True) == pytest.approx(3 * (65 + 8 * 10) + 2 * 3, rel=1e-4)
    assert dense(WINOGRANDE, of_smc=False) == pytest.approx(3 * 2 * (65 + 70), rel=1e-4)
    assert dense(RACE, of_smc=False) == pytest.approx(5 + 7 + 11, rel=1e-4)


def test_the_whole_grid_has_the_expected_runs(plan):
    of_smc = 276 + 240 + 80  # CommonsenseQA with the two further seeds, WinoGrande, RACE
    guidelines = 108 + 3  # on WinoGrande and RACE
    guidelines += 18 * 2 * 3 + 5 * 2 * 2 + 8 * 3  # on CommonsenseQA; two seeds more at 5 sparsities; 8 of T2 and T3
    ladder = 25 + 50 + 50 + 30  # its first step, and without distillation, schedule and scope
    parts = (
        4 * 4 * 3 + (4 * 4 + 4) * 3
    )  # four scopes at four sparsities; on SQuAD the encoder alone at four of T2's too
    rules, classic = 5 * 4 * 3, 3 * 2 * 3 * 3
    exported = (
        4 + 16 + 16 + 2 * 2
    )  # teachers of what is timed, models of both encoders' parts, MNLI's and QQP's at 80 and 90 %
    assert of_smc + guidelines + ladder + parts + rules + classic == 1236
    assert Counter(run.stage.name for run in plan) == {
        "teacher": 6,
        "transfer": 8,
        "downstream": 1236,
        "export": exported,
        "benchmark": exported,
    }
    assert len(set(plan)) == len(plan)
