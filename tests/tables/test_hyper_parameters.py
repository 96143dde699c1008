"""The table of hyper-parameters: what is a column, and what is said below instead."""

from obert.statistics.formatting import DASH
from obert.tables.hyper_parameters import HyperParameters
from tables.examples import FISHER, record


def run(recipe, method, training, seed=0, task="movie_reviews", sparsity=0.9, **more):
    content = {"stage": "downstream", "training": training, "distillation": None} | more
    spec = {"recipe": content, **({"method": FISHER} if method == "obert" else {})}
    made = record("downstream", 70.0, recipe=recipe, method=method, sparsity=sparsity, task=task, seed=seed, spec=spec)
    return made, None, 0


def training(epochs=2.0, batch_size=16, rewinds=()):
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": {"rewind_epochs": list(rewinds)}}


def test_what_differs_is_a_column_and_the_rest_is_told_below(make_results):
    results = make_results(
        [
            run("plain", "magnitude", training(), distillation={"hardness": 1.0, "temperature": 2.0}),
            run("longer", "magnitude", training(4.0), freeze=True),
            run("longer", "obert", training(4.0), freeze=True),
        ]
    )
    table = HyperParameters()
    content = table.build(results)
    shown = table.display(content).set_index("recipe")
    fisher = [f"methods.obert.{name}" for name in FISHER]
    assert set(content) - {"stage", "recipe"} == {
        "training.epochs", "distillation.hardness", "distillation.temperature", "freeze", *fisher,
    }  # fmt: skip
    assert shown.loc["plain", ["training.epochs", "distillation.temperature", "freeze"]].tolist() == ["2", "2", DASH]
    assert shown.loc["longer", ["training.epochs", "distillation.temperature", "freeze"]].tolist() == ["4", DASH, "yes"]
    assert shown.loc["longer", "methods.obert.dampening"] == "1e-07"
    (note,) = table.notes(results)
    assert note.text == "The same in all rows: training.batch_size 16; training.learning_rate.rewind_epochs none."


def test_values_that_differ_by_task_are_in_one_cell_in_their_order(make_results):
    runs = [run("one", "magnitude", training(batch_size=16)), run("two", "magnitude", training())]
    runs.insert(1, run("one", "magnitude", training(batch_size=8), task="city_qa"))
    content = HyperParameters().build(make_results(runs)).set_index("recipe")
    assert content["training.batch_size"].to_dict() == {"one": "16 / 8", "two": "16"}


def test_what_scaling_decides_is_left_out(make_results):
    scaling = {"unit_epochs": 2.0, "cycles": {"density": 0.2}}
    runs = [
        run(
            "scaled",
            "magnitude",
            training(10.0, rewinds=(2, 4, 6, 8)),
            sparsity=0.5,
            scaling=scaling,
            schedule={"a": 1},
        ),
        run("plain", "magnitude", training(3.0, rewinds=(1,))),
    ]
    content = HyperParameters().build(make_results(runs)).set_index("recipe")
    assert content.loc["scaled", "scaling.cycles.density"] == "0.2"
    assert content.loc["scaled", ["training.epochs", "training.learning_rate.rewind_epochs"]].tolist() == ["", ""]
    assert content.loc["plain", ["training.epochs", "training.learning_rate.rewind_epochs"]].tolist() == ["3", "1"]
    assert "schedule.a" not in content
