from obert.tables.provenance import Provenance
from tables.examples import record


def test_hours_of_a_run_that_was_resumed_are_of_all_its_processes(make_results):
    """The last process took 10 minutes; training and pruning were 80 and 40."""
    costs = {"training_seconds": 4800.0, "pruning_seconds": 2400.0}
    made = record("downstream", 70.0, method="obert", sparsity=0.9, wall_time_seconds=600, costs=costs)
    assert Provenance().build(make_results([(made, None, 0)]))["hours"].tolist() == [2]


def test_runs_that_the_same_code_made_are_one_row(make_results):
    common = {"method": "obert", "sparsity": 0.9}
    elsewhere = {"git_commit": "e" * 40, "git_dirty": True, "gpu": "Example GPU", "packages": {"torch": "2.11"}}
    results = make_results([
        (record("teacher", 80.0), None, 0),
        (record("downstream", 70.0, seed=0, **common, wall_time_seconds=1800), None, 0),
        (record("downstream", 71.0, seed=1, **common, wall_time_seconds=5400), None, 0),
        (record("downstream", 72.0, seed=2, **common, code_hash="1" * 16, environment=elsewhere), None, 0),
    ])  # fmt: skip
    table = Provenance()
    content = table.build(results)
    assert content[["stage", "method", "runs"]].values.tolist() == [
        ["teacher", "", 1],
        ["downstream", "obert", 2],
        ["downstream", "obert", 1],
    ]
    assert content["hours"][1] == 2
    assert content["code_hash"].tolist() == ["0" * 16, "0" * 16, "1" * 16]
    shown = table.display(content)
    assert shown["commit"].tolist() == ["f" * 10, "f" * 10, "e" * 10 + " +"]
    assert shown["made on"].tolist() == ["Example CPU", "Example CPU", "Example GPU"]
    assert shown["torch"].tolist() == ["\N{EN DASH}", "\N{EN DASH}", "2.11"]
