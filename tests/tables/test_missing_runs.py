"""Tables say which planned runs that belong to them are missing, and how to make them."""

import pytest

from obert.experiment.keys import RunKey
from obert.tables.table1 import Table1
from obert.tables.table3 import Table3
from obert.tables.table4 import Table4
from tables.examples import record

KEY = RunKey("downstream", "movie_reviews", "one_shot", 0, "obert", 0.5)
FILE = "results/runs/example/downstream/movie_reviews/one_shot/obert-0.5/seed0/metrics.json"


def recipe(**fields):
    return {"recipe": {"training": None, "pattern": "unstructured", **fields}}


@pytest.mark.parametrize(("pattern", "table", "other"), [("unstructured", Table1, Table4), ("2:4", Table4, Table1)])
def test_missing_runs_are_named_where_their_recipe_belongs(make_results, pattern, table, other):
    done = record("downstream", 60.0, method="magnitude", sparsity=0.5, recipe="one_shot", spec=recipe(pattern=pattern))
    results = make_results([(done, None, 0)], planned=[KEY], specifications={KEY: recipe(pattern=pattern)})
    last = table().notes(results)[-1]
    assert last.text.startswith("1 of the 2 planned runs that belong here are missing")
    assert last.lines == ("snakemake --cores all \\", f"  {FILE} \\", "  --configfile configs/example.yaml")
    assert other().notes(results)[-1].text.startswith("configs/example.yaml plans no run that belongs here")


def test_no_note_is_written_where_no_run_is_missing(make_results):
    done = record("downstream", 60.0, method="obert", sparsity=0.5, recipe="one_shot")
    assert not any("belong" in note.text for note in Table1().notes(make_results([(done, None, 0)])))


def test_missing_models_of_fewer_layers_are_known_by_their_upstream_recipe(make_results):
    cut = RunKey("upstream", "mlm", "keep_1", 0)
    few, full = (RunKey("downstream", "city_qa", name, 0, "obert", 0.9) for name in ("gradual@keep_1", "short"))
    trained = {"training": {"epochs": 3.0}}
    specifications = {
        cut: recipe(layers=[0]),
        few: recipe(**trained),
        full: recipe(training={"epochs": 1.0}),
    }
    teacher = record("teacher", 80.0, task="city_qa")
    results = make_results([(teacher, None, 0)], planned=[cut, few, full], specifications=specifications)
    lines = Table3().notes(results)[-1].lines
    assert len(lines) == 3 and "gradual@keep_1" in lines[1]
