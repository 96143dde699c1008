"""What every table and figure must do."""

import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

from obert.foundation import registry
from obert.report.built import build_table
from obert.report.files import table_files
from obert.tables.accuracy_vs_sparsity import AccuracyVsSparsity
from obert.tables.schedules import Schedules
from tables.examples import record

NAMES = registry.names("tables")


def test_every_table_and_figure_of_the_paper_has_a_file():
    of_the_paper = {f"table{n}" for n in (*range(1, 9), *range(12, 18))} | {f"figure{n}" for n in range(1, 10)}
    assert set(NAMES) >= {"leaderboard", "accuracy_vs_sparsity", "schedules", *of_the_paper}


@pytest.mark.parametrize("name", NAMES)
def test_table_has_all_its_files_and_two_builds_give_the_same_bytes(name, two_tasks):
    first, second = (build_table(name, registry.load("tables", name)(), two_tasks) for _ in range(2))
    files = table_files(first)
    assert files == table_files(second)
    suffixes = {"csv", "md", "html", "tex"} | ({"png", "svg"} if first.figure else set())
    assert set(files) == {f"{name}.{suffix}" for suffix in suffixes}
    assert first.title in files[f"{name}.md"].decode() and first.caption
    assert not first.content.empty or first.notes  # what is missing is said
    assert all("nan" not in files[f"{name}.{kind}"].decode().lower().split() for kind in ("csv", "md"))
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", NAMES)
def test_table_without_records_says_so(name, no_results):
    built = build_table(name, registry.load("tables", name)(), no_results)
    assert "has no records yet" in built.notes[0].text
    files = table_files(built)
    assert all("has no records yet" in files[f"{name}.{kind}"].decode() for kind in ("md", "html"))


@pytest.mark.parametrize("name", NAMES)
def test_table_is_built_from_records_without_scores(name, make_results):
    runs = [(record("downstream", None, method=m, sparsity=0.9), None, 0) for m in ("obert", "magnitude")]
    assert table_files(build_table(name, registry.load("tables", name)(), make_results(runs)))


def test_loading_every_table_imports_no_training_library():
    code = (
        "import sys; from obert.foundation import registry; import obert.commands.tables;"
        "[registry.load('tables', n) for n in registry.names('tables')];"
        "print(sorted({'torch', 'transformers', 'datasets', 'mlflow', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dense_models_are_left_out_of_curves(make_results):
    dense = record("transfer", 70.0, recipe="transfer@whole", method="dense", sparsity=0.0)
    pruned = record("transfer", 60.0, recipe="transfer@pruned", method="obert", sparsity=0.9)
    runs = [(dense, None, 0), (pruned, None, 0)]
    assert AccuracyVsSparsity().build(make_results(runs))["panel"].tolist() == ["transfer@pruned"]


def test_schedules_hold_both_sides_of_a_jump_in_sparsity(results):
    """Twenty steps over ten epochs, pruned after epoch 2: the curve holds both sides of the jump."""
    content = Schedules().build(results)
    assert len(content) == 20 and set(content["method"]) == {"obert"}
    assert content.loc[content["sparsity"] > 0, "epoch"].min() == 2.5
    assert content.loc[content["sparsity"] == 0, "epoch"].max() == 2.0


def test_schedules_thin_long_curves_and_keep_pruning_steps(make_results):
    made = record("downstream", 70.0, method="obert", sparsity=0.9)
    content = Schedules().build(make_results([(made, None, 5000)]))
    assert len(content) <= 210
    assert {2.0, 2.002} <= set(content["epoch"].round(6))
