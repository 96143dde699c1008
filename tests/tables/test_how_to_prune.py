"""The tables of the second paper: what a run follows is read from its specification, not from names."""

import math
from collections import Counter

import pytest

from obert.foundation.errors import UserError
from obert.masks.counts import LayerSparsity, Sparsity
from obert.report.built import build_table
from obert.report.text import to_markdown
from obert.statistics.formatting import DASH
from obert.tables._collapsed import collapsed_text, has_collapsed
from obert.tables._guidelines import GUIDELINES, Place, place_of
from obert.tables._published import Curve, load_published
from obert.tables.accuracy_vs_cost import AccuracyVsCost
from obert.tables.classic import Classic
from obert.tables.ladder import Ladder
from obert.tables.layer_sparsity import LayerSparsity as LayerSparsityFigure
from obert.tables.published_curves import PublishedCurves
from obert.tables.smc_bench import SmcBench
from tables.examples import record

CSQA = "commonsense_qa"
RECIPES = {  # by the first letters of the guidelines that each follows
    "": "a", "s": "b", "sc": "c", "scd": "d", "cd": "e", "sd": "f",
}  # fmt: skip


def recipe(follows, control=None):
    """A recipe as a record shows it: s the encoder alone, c cycles that grow with the sparsity, d distillation."""
    wide = "s" not in follows
    scaling = {"cycles": {"density": 0.2} if "c" in follows else {"constant": 1}}
    scaling |= {"equal_compute": {"length": control, "of": [0.9]}} if control else {}
    return {
        "training": {"epochs": 2.0},
        "scope": {"encoder": True, "embeddings": wide, "head": wide},
        "scaling": scaling,
        "distillation": {"hardness": 1.0, "temperature": 2.0} if "d" in follows else None,
        "schedule": {"start_epoch": 0.2, "end_epoch": 1.6},
    }


def made(follows, scores, *, seed=0, method="magnitude", name=None, sparsity=0.9, task=CSQA, control=None, **fields):
    """A run that scored so on four examples; embeddings and head are a fifth of all weights."""
    chosen = {"task": task, "recipe": name or RECIPES[follows], "seed": seed, "method": method, "sparsity": sparsity}
    fields.setdefault("spec", {"recipe": recipe(follows, control)})
    run = record("downstream", sum(scores) / 4, **chosen, **fields)
    whole = sparsity if "s" not in follows else 0.8 * sparsity
    counted = Sparsity(
        target=sparsity,
        measured=sparsity,
        layers={"layer": LayerSparsity(zeros=1, size=2)},
        encoder=sparsity,
        whole_model=whole,
    )
    costs = {"optimizer_steps": 1000 * (1 + len(follows)), "training_seconds": 7000.0, "pruning_seconds": 200.0}
    return run.model_copy(update={"sparsity": counted, "costs": costs}), scores, 0


def rows(results, **chosen):
    content = Ladder().build(results)
    return content[(content[list(chosen)] == chosen).all(axis=1)] if chosen else content


def test_curves_of_smc_bench_are_complete():
    """Sums of the values of each curve, and how many points are on the line of chance."""
    values, chance = Counter(), Counter()
    cells = [n for n in load_published().table("smc_bench", "commonsense") if not n.is_dense]
    for number in cells:
        values[number.task, number.label] += number.value or 0
        chance[number.task, number.label] += number.at_chance
    wanted = {
        (CSQA, "LTH"): (219.5, 7),
        (CSQA, "GMP"): (213.5, 7),
        (CSQA, "OMP after"): (207.9, 7),
        (CSQA, "OMP before"): (311.4, 0),
        (CSQA, "OMP before + RigL"): (111.2, 7),
        (CSQA, "random after"): (83.6, 7),
        ("winogrande", "LTH"): (463.3, 3),
        ("winogrande", "GMP"): (462.0, 3),
        ("winogrande", "OMP after"): (323.5, 5),
        ("winogrande", "OMP before"): (377.2, 4),
        ("race_middle", "LTH"): (655.8, 1),
        ("race_middle", "GMP"): (337.9, 6),
        ("race_high", "LTH"): (598.7, 1),
        ("race_high", "GMP"): (310.5, 6),
    }
    assert {key: (pytest.approx(values[key]), chance[key]) for key in values} == wanted
    levels = [0.2, 0.36, 0.488, 0.59, 0.672, 0.738, 0.791, 0.8325, 0.866, 0.893]
    assert Counter(n.sparsity for n in cells) == dict.fromkeys(levels, 14)
    assert {(n.value is None, n.approximate, n.reading_error) for n in cells} == {
        (True, False, None),
        (False, True, None),
        (False, False, 0.3),
    }


def test_no_number_of_how_to_prune_is_invented():
    published = load_published()
    assert not [n for n in published.numbers if n.paper == "how_to_prune"]
    assert published.papers["how_to_prune"].unread and published.papers["smc_bench"].sparsity_of == "matrices"


CURVE = {
    "paper": "p", "table": "t", "task": "x", "metric": "accuracy", "method": "magnitude", "label": "GMP",
    "reading_error": 0.3, "sparsities": [0.2, 0.36, 0.5],
}  # fmt: skip


def test_a_curve_says_what_is_read_hidden_and_at_chance():
    read, hidden, chance = Curve(**CURVE, values=[72.4, "~69", "chance"]).numbers()
    assert (read.value, read.reading_error, read.approximate, read.at_chance) == (72.4, 0.3, False, False)
    assert (hidden.value, hidden.reading_error, hidden.approximate) == (69.0, None, True)
    assert (chance.value, chance.at_chance, chance.sparsity) == (None, True, 0.5)


@pytest.mark.parametrize(
    ("values", "message"), [("[1.0]", "1 values for 3 sparsities"), ("[1.0, 2.0, about 3]", "curves.0.values.2")]
)
def test_a_mistake_in_a_curve_is_named(tmp_path, values, message):
    curve = "{paper: p, table: t, task: x, metric: accuracy, method: magnitude, label: GMP, reading_error: 0.3, "
    path = tmp_path / "published.yaml"
    path.write_text(
        "papers: {p: {title: a, reference: b, model: c}}\nnumbers: []\n"
        f"curves:\n- {curve}sparsities: [0.2, 0.36, 0.5], values: {values}}}\n"
    )
    with pytest.raises(UserError, match=message):
        load_published(path)


@pytest.mark.parametrize(
    ("follows", "method", "step", "label"),
    [
        ("", "magnitude", 0, "as in SMC-Bench"),
        ("s", "magnitude", 1, "+ scope"),
        ("sc", "magnitude", 2, "+ schedule (all but distillation)"),
        ("scd", "magnitude", 3, "+ distillation"),
        ("scd", "obert", 4, "+ oBERT"),
        ("cd", "magnitude", None, "all but scope"),
        ("sd", "obert", None, "all but schedule"),
        ("sc", "obert", None, "all but distillation"),
        ("c", "magnitude", None, "only schedule"),
        ("", "obert", None, "as in SMC-Bench"),
    ],
)
def test_the_place_of_a_run_is_read_from_its_specification(follows, method, step, label):
    place = place_of(made(follows, (100,) * 4, method=method, name="any")[0])
    assert (place.step, place.label) == (step, label)


def test_what_is_no_gradual_run_of_the_ladder_has_no_place():
    at_once = recipe("") | {"schedule": {"start_epoch": 1.0, "end_epoch": 1.0}}
    assert place_of(made("", (100,) * 4, spec={"recipe": at_once})[0]) is None
    assert place_of(made("", (100,) * 4, spec={"recipe": recipe("") | {"training": None}})[0]) is None
    assert place_of(made("", (100,) * 4, method="lottery_ticket")[0]) is None
    part = recipe("scd") | {"scope": {"encoder": True, "embeddings": False, "head": "own"}}
    assert place_of(made("scd", (100,) * 4, spec={"recipe": part})[0]) is None  # the scopes' own table has it
    low = made("scd", (100,) * 4, spec={"recipe": recipe("scd") | {"schedule": at_once["schedule"]}})
    assert place_of(low[0]).is_full  # a schedule that scales has room for one event at a low sparsity
    control = place_of(made("scd", (100,) * 4, control="longest")[0])
    assert control == Place(GUIDELINES, "magnitude", "longest") and control.step is None and not control.is_full


@pytest.fixture
def ladder(make_results):
    """Of four examples, right by seed: a 1 and 2, b 2 and 2, d 4 and 3 (oBERT 4 and 4), e 3 and 3; one control."""
    scores = {n: (100,) * n + (0,) * (4 - n) for n in range(5)}
    runs = [
        made(follows, scores[right], seed=seed, method=method, details={"collapsed": right == 1})
        for follows, method, both in (
            ("", "magnitude", (1, 2)),
            ("s", "magnitude", (2, 2)),
            ("scd", "magnitude", (4, 3)),
            ("scd", "obert", (4, 4)),
            ("cd", "magnitude", (3, 3)),
        )
        for seed, right in enumerate(both)
    ]
    runs.append(made("scd", scores[4], name="g", control="longest", details={"collapsed": False}))
    return make_results(runs)


def test_rows_go_up_the_ladder_and_then_beside_it(ladder):
    found = rows(ladder)
    assert found["guidelines"].tolist() == [
        "as in SMC-Bench", "+ scope", "+ distillation", "+ oBERT", "all but scope", "all, at equal compute (longest)",
    ]  # fmt: skip
    assert found["step"].tolist()[:4] == [0, 1, 3, 4] and found["step"].isna().tolist()[4:] == [True, True]
    assert found["score_mean"].tolist() == [37.5, 50.0, 87.5, 100.0, 75.0, 100.0]
    assert found["n"].tolist() == [2, 2, 2, 2, 2, 1]
    assert found["collapsed"].tolist() == [1, 0, 0, 0, 0, 0]
    assert found["training_steps"].tolist() == [1000, 2000, 4000, 4000, 3000, 4000]
    assert found["hours"].tolist() == [2.0] * 6
    assert found["encoder_sparsity"].tolist() == [0.9] * 6
    assert found["whole_model_sparsity"].tolist() == pytest.approx([0.9, 0.72, 0.72, 0.72, 0.9, 0.72])


def test_differences_are_to_the_nearest_step_below_all_guidelines_and_the_first_step(ladder):
    found = rows(ladder).set_index("guidelines")
    assert found["before"].tolist()[1:4] == pytest.approx([12.5, 37.5, 12.5])
    assert found["before"].isna().tolist() == [True, False, False, False, True, True]
    assert found.loc["all but scope", "full"] == pytest.approx(-12.5)
    assert found.loc["+ scope", "full"] == pytest.approx(-37.5)
    assert math.isnan(found.loc["+ oBERT", "full"])  # it is the only run of oBERT
    assert found["smc"].tolist()[1:5] == pytest.approx([12.5, 50.0, 62.5, 37.5])
    # The control has one seed, where all guidelines score 100 and SMC-Bench's setting 25.
    control = found.loc["all, at equal compute (longest)"]
    assert (control["full"], control["smc"]) == (0.0, 75.0)
    low, high = found.loc["+ distillation", ["before_low", "before_high"]]
    assert low < 37.5 < high


def test_differences_pair_examples(make_results):
    """Right on the same three examples, and each one better: no interval. On other ones it is wide."""
    same = [made("", (100, 100, 0, 0)), made("s", (100, 100, 0, 0)), made("sc", (0, 0, 100, 100))]
    found = rows(make_results(same)).set_index("guidelines")
    assert found.loc["+ scope", ["before", "before_low", "before_high"]].tolist() == [0, 0, 0]
    low, high = found.loc["+ schedule (all but distillation)", ["before_low", "before_high"]]
    assert low <= -50 and high >= 50


def test_the_note_gives_the_difference_at_the_highest_sparsity_of_both(make_results):
    runs = [made(f, (100, 100, 100, 0), sparsity=s) for f in ("", "scd") for s in (0.5, 0.7)]
    runs.append(made("scd", (100,) * 4, sparsity=0.95))
    texts = [note.text for note in Ladder().notes(make_results(runs))]
    assert any(text.startswith("commonsense_qa, 70 %,") and "+0.00 [+0.00, +0.00]" in text for text in texts)
    assert any("abstract says" in text and "no cells" in text for text in texts)


def test_collapsed_is_read_judged_or_unknown(make_results):
    """Beside older records, predictions with labels tell all, and others that a model always says the same."""
    told = made("", (100,) * 4, seed=0, details={"collapsed": False})
    same = made("", (100,) * 4, seed=1)  # the examples predict 1 for everything
    none = made("", (100,) * 4, seed=2)
    results = make_results([told, same, (none[0], None, 0)])
    assert [has_collapsed(results, r) for r in results.records] == [False, True, None]
    assert rows(results)[["collapsed", "judged", "n"]].to_numpy().tolist() == [[1, 2, 3]]
    assert collapsed_text(1, 2, 3) == "1 of 2 (1 unknown)" and collapsed_text(math.nan, 0, 2) == "unknown"


def test_collapsed_by_predictions_with_labels(make_results):
    made_run = made("", (100, 100, 0, 0))
    results = make_results([made_run])
    path = results.folder / made_run[0].key.path / "predictions.jsonl"
    pairs = {"at chance": "aa ab ba bb", "learnt": "aa aa bb bb ab aa bb aa bb aa"}
    for text, collapsed in zip(pairs.values(), (True, False), strict=True):
        lines = [
            f'{{"id": "{i}", "prediction": "{p}", "label": "{t}", "score": 0}}' for i, (p, t) in enumerate(text.split())
        ]
        path.write_text("\n".join(lines))
        assert has_collapsed(results, made_run[0]) is collapsed


def test_smc_bench_shows_published_and_measured_at_the_same_level(make_results):
    runs = [made(f, (100, 100, 0, 0), sparsity=s, seed=k) for f in ("", "scd") for s in (0.2, 0.59) for k in (0, 1)]
    runs.append(made("", (100, 0, 0, 0), method="lottery_ticket", name="lth", sparsity=0.59))
    runs.append(made("s", (100, 0, 0, 0), sparsity=0.59))  # a step between the two has no column
    table = SmcBench()
    content = table.build(make_results(runs))
    shown = table.display(content).set_index(("", "sparsity %"))
    assert shown["LTH", "published"].tolist() == ["~76.0", "~74.0", "69.5", *["chance"] * 7]
    assert shown["dense", "published"].tolist() == ["77.3"] * 10
    again = shown["as in SMC-Bench, a: magnitude", "measured"].tolist()
    assert again == ["50.00 ± 0.00 (n=2)", DASH, DASH, "50.00 ± 0.00 (n=2)", *[DASH] * 6]
    assert shown["all guidelines, d: magnitude", "whole model %"].tolist()[3] == "47.2"
    assert shown["as in SMC-Bench, lth: lottery_ticket", "measured"].tolist()[3] == "25.00 (n=1)"
    measured = {label for label, column in content.columns if column == "measured_n"}
    assert not any("b: magnitude" in label for label in measured)


def test_tables_of_smc_bench_leave_out_tasks_that_the_experiment_lacks(make_results):
    results = make_results([made("", (100,) * 4, task="winogrande", sparsity=0.2)])
    assert set(SmcBench().build(results)["row", "task"]) == {"winogrande"}
    assert set(PublishedCurves().build(results)["task"]) == {"winogrande"}


def test_race_of_both_schools_stands_beside_the_published_curves_of_each(make_results):
    results = make_results([made("", (100,) * 4, task="race", sparsity=0.2)])
    found = SmcBench().build(results)
    assert found["row", "task"].tolist() == ["race", *["race_middle"] * 10, *["race_high"] * 10]
    assert set(PublishedCurves().build(results)["task"]) == {"race", "race_middle", "race_high"}


def test_curves_break_where_the_figure_has_no_value(make_results):
    """OMP after on WinoGrande: four values, five points at chance, one value."""
    figure = PublishedCurves()
    content = figure.build(make_results([made("", (100,) * 4, task="winogrande", sparsity=0.2)]))
    axis = figure.draw(content).axes[0]
    lines = {line.get_label(): line for line in axis.containers}
    values = lines["OMP after, published"].lines[0].get_ydata()
    assert [math.isnan(value) for value in values] == [False] * 4 + [True] * 5 + [False]
    crosses = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_xdata()) == 5]
    assert crosses and set(crosses[0].get_ydata()) == {50}


def test_classic_tasks_show_the_guidelines_beside_published_numbers(make_results):
    runs = [made(f, (100, 100, 0, 0), task="squad", method=m) for f in ("scd", "s") for m in ("magnitude", "obert")]
    table = Classic()
    shown = table.display(table.build(make_results(runs)))
    of_squad = shown[(shown["", "task"] == "squad") & (shown["", "sparsity %"] == "90.0")].iloc[0]
    assert of_squad["oBERT, 30 epochs", "published"] == "88.31 ± 0.13 (n=3)"
    assert of_squad["LT-BERT, 30 epochs", "published"] == "68.00*"
    own = {label for label, _ in shown.columns if ": " in label}
    assert own == {"d: magnitude, 2 epochs, 2 layers", "d: obert, 2 epochs, 2 layers"}
    assert of_squad["d: obert, 2 epochs, 2 layers", "measured"] == "50.00 (n=1)"


def test_cost_is_in_steps_and_hours(make_results):
    found = AccuracyVsCost().build(make_results([made("sc", (100,) * 4), made("sc", (100,) * 4, seed=1)]))
    assert found[["training_steps", "hours", "n"]].to_numpy().tolist() == [[3000, 2.0, 2]]
    assert found["series"].tolist() == ["+ schedule (all but distillation); c: magnitude"]


def test_sparsity_by_layer_has_embeddings_before_and_the_head_behind(make_results):
    narrow, wide = (made(f, (100,) * 4)[0] for f in ("s", ""))
    query = "bert.encoder.layer.0.attention.self.query.weight"
    part = LayerSparsity(zeros=90, size=100)
    outside = ("classifier.weight", "bert.embeddings.word_embeddings.weight", query)
    runs = [
        (
            run.model_copy(update={"sparsity": run.sparsity.model_copy(update={"layers": dict.fromkeys(names, part)})}),
            None,
            0,
        )
        for run, names in ((narrow, (query,)), (wide, outside))
    ]
    figure = LayerSparsityFigure()
    axis = figure.draw(figure.build(make_results(runs))).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["word", "Q", "classifier"]
    assert [text.get_text() for text in axis.texts] == ["90"] * 4


def test_markdown_names_the_source_and_the_reason_for_empty_cells(make_results):
    built = build_table("smc_bench", SmcBench(), make_results([made("", (100,) * 4, sparsity=0.2)]))
    text = to_markdown(built)
    assert "arXiv:2303.02141" in text and "only its abstract was at hand" in text
