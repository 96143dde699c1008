import math

import pytest

from obert.foundation.errors import UserError
from obert.masks.counts import LayerSparsity, Sparsity
from obert.records.record import Score
from obert.tables.latency import Latency
from obert.tables.leaderboard import Leaderboard
from tables.examples import DENSE_RECIPE, record


@pytest.fixture
def rows(results):
    return Leaderboard().build(results).set_index("method")


def test_dense_model_is_the_first_row(rows):
    assert list(rows.index) == ["dense", "obert", "magnitude", "movement"]
    assert rows.loc["dense", "score_mean"] == 80.0
    assert rows.loc["dense", "recovery"] == 100.0
    assert math.isnan(rows.loc["dense", "rank"])


def test_scores_have_means_standard_deviations_and_recoveries(rows):
    """oBERT: 100 and 75, so mean 87.5 and std 25 / sqrt(2); magnitude: 75 and 75. Recovery of the dense model's
    lead of 30 over a chance of 50: 37.5 and 25 of it; movement, always wrong, is below chance."""
    assert rows.loc["obert", "score_mean"] == 87.5
    assert rows.loc["obert", "score_std"] == pytest.approx(25 / math.sqrt(2))
    assert rows.loc["obert", "n"] == 2
    assert rows.loc["obert", "recovery"] == pytest.approx(125.0)
    assert rows.loc["magnitude", "score_std"] == 0.0
    assert rows.loc["magnitude", "recovery"] == pytest.approx(250 / 3)
    assert rows.loc["movement", "recovery"] == pytest.approx(-500 / 3)
    assert rows["chance"].tolist() == [50.0] * 4


def test_methods_share_a_rank_where_the_interval_contains_zero(rows):
    """Magnitude differs from oBERT on one example of four, in one of two seeds: by 12.5 points, which prove nothing.
    Movement is wrong on all that oBERT gets right in both seeds or in one: its interval leaves out 0."""
    assert rows.loc["magnitude", "difference"] == -12.5
    assert rows.loc["magnitude", "difference_low"] < -25 and rows.loc["magnitude", "difference_high"] > 0
    assert rows.loc["movement", "difference"] == -87.5
    assert rows["rank"].tolist()[1:] == [1, 1, 3]


def test_rows_hold_size_speed_and_costs(rows):
    assert rows.loc["obert", "size_gzip_mb"] == 12.5
    assert (rows.loc["obert", "pytorch_throughput"], rows.loc["obert", "pytorch_speedup"]) == (200.0, 2.5)
    assert rows.loc["dense", "pytorch_throughput"] == 80.0 and math.isnan(rows.loc["dense", "pytorch_speedup"])
    assert math.isnan(rows.loc["magnitude", "pytorch_throughput"])
    costs = rows.loc["obert", ["training_steps", "gradient_evaluations", "seconds"]]
    assert costs.tolist() == [30, 64, 12]


def test_three_sparsities_are_shown_where_more_than_the_encoder_is_pruned(make_results):
    chosen = {"method": "obert", "sparsity": 0.9}
    layers = {"layer": LayerSparsity(zeros=360, size=400)}

    def shown(**parts):
        sparsity = Sparsity(target=0.9, measured=0.9, layers=layers, **parts)
        found = record("downstream", 75.0, **chosen).model_copy(update={"sparsity": sparsity})
        results, table = make_results([(found, None, 0)]), Leaderboard()
        return table.display(table.build(results)).set_index("method")

    wide = shown(encoder=0.85, whole_model=0.9)
    assert wide.loc["obert", ["measured %", "encoder %", "whole model %"]].tolist() == ["90.00", "85.00", "90.00"]
    for usual in (shown(), shown(encoder=0.9, whole_model=0.7)):
        assert not {"encoder %", "whole model %"} & set(usual.columns)


def test_displayed_numbers_have_spreads_signs_and_dashes(results):
    table = Leaderboard()
    shown = table.display(table.build(results)).set_index("method")
    assert shown.loc["obert", "score"] == "87.50 ± 17.68 (n=2)"
    assert shown.loc["obert", "pytorch speed-up"] == "2.50\N{MULTIPLICATION SIGN}"
    assert shown.loc["magnitude", "pytorch ex/s"] == "\N{EN DASH}"
    assert shown["rank"].tolist() == ["\N{EN DASH}", "1", "1", "3"]


def test_engine_without_a_timing_shows_dashes_and_the_reason(make_results):
    chosen = {"method": "obert", "sparsity": 0.9}
    details = {
        "skipped": {"deepsparse": "DeepSparse needs an environment"},
        "failed": {"onnxruntime": "ended by SIGABRT.\nIt wrote last:\nAssertion"},
        "engines": {"pytorch": {"unsupported": {"dense": "Sin 'a'", "candidate": "Sin 'b'"}}},
    }
    speed = {"pytorch_throughput": Score(value=200.0, count=20)}
    runs = [
        (record("downstream", 75.0, **chosen), None, 0),
        (record("benchmark", metrics=speed, details=details, **chosen), None, 0),
        (record("benchmark", metrics=speed, details={"skipped": details["skipped"]}, recipe=DENSE_RECIPE), None, 0),
    ]
    results, table = make_results(runs), Leaderboard()
    shown = table.display(table.build(results))
    engines = ["deepsparse", "onnxruntime", "pytorch"]
    assert [c for c in shown.columns if c.endswith(" ex/s")] == [
        f"{engine}{kind} ex/s" for engine in engines for kind in ("", ": dense")
    ]
    assert shown.loc[0, ["deepsparse ex/s", "onnxruntime ex/s"]].tolist() == ["\N{EN DASH}"] * 2
    run = "benchmark/movie_reviews/gradual/obert-0.9/seed0"
    assert [(note.text, note.lines) for note in table.notes(results)[-3:]] == [
        ("deepsparse was not timed. DeepSparse needs an environment.", ()),
        ("onnxruntime failed: ended by SIGABRT.", (run,)),
        ("pytorch runs a part of the model with a slower fallback. First operator: Sin 'b'.", (run,)),
    ]


def test_notes_list_missing_runs_with_their_commands(results):
    note = Leaderboard().notes(results)[-1]
    assert note.text.startswith("2 of 12 planned runs have no record")
    assert note.lines[0] == (
        "python -m obert downstream --config configs/example.yaml "
        "--task movie_reviews --recipe gradual --method obert --sparsity 0.97 --seed 0"
    )


def test_single_seeds_without_predictions_are_ranked_by_score_without_an_interval(make_results):
    scores = {"magnitude": 70.0, "obert": 71.0, "obd": 70.0}
    runs = [(record("downstream", value, method=m, sparsity=0.9), None, 0) for m, value in scores.items()]
    rows = Leaderboard().build(make_results(runs))
    assert dict(zip(rows["method"], rows["rank"], strict=True)) == {"obert": 1, "magnitude": 2, "obd": 2}
    assert Leaderboard().display(rows)["rank"].tolist() == ["1 (one seed)", "2 (one seed)", "2 (one seed)"]
    assert rows["difference_low"].isna().all() and rows["score_std"].isna().all() and rows["recovery"].isna().all()


def test_ranks_compare_methods_of_the_same_recipe_only(make_results):
    runs = [
        (record("downstream", value, method=method, sparsity=0.9, recipe=recipe), None, 0)
        for recipe, method, value in [
            ("one_shot", "obert", 60.0),
            ("one_shot", "magnitude", 50.0),
            ("gradual", "magnitude", 70.0),
            ("gradual", "obert", 75.0),
            ("alone", "obert", 65.0),
        ]
    ]
    rows = Leaderboard().build(make_results(runs))
    assert rows["recipe"].tolist() == ["gradual", "gradual", "alone", "one_shot", "one_shot"]
    assert rows["rank"].fillna(0).tolist() == [1, 2, 0, 1, 2]


def test_runs_on_different_examples_raise_an_error(make_results, tmp_path):
    runs = [(record("downstream", 75.0, method=m, sparsity=0.9), (100, 0, 100, 100), 0) for m in ("magnitude", "obert")]
    results = make_results(runs)
    path = tmp_path / "runs" / runs[0][0].key.path / "predictions.jsonl"
    path.write_text(path.read_text().replace('"a"', '"z"'))
    with pytest.raises(UserError, match=r"against.*same examples"):
        Leaderboard().build(results)


@pytest.mark.parametrize("line", [b"{", b'{"id": "a"}', b'{"id": "a", "score": "x"}', b"3", b"\xff"])
def test_damaged_predictions_raise_an_error_that_names_the_line(results, tmp_path, line):
    path = tmp_path / "runs" / results.of_stage("downstream")[0].key.path / "predictions.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 1 is damaged"):
        Leaderboard().build(results)


def test_latency_table_has_a_row_for_each_scenario(make_results):
    speeds = {"onnxruntime_throughput": Score(value=80.0, count=20), "onnxruntime_speedup": Score(value=2.0, count=20)}
    speeds["onnxruntime_batch1_length16_threads1_throughput"] = Score(value=30.0, count=20)
    scenarios = [{"batch_size": b, "sequence_length": n, "threads": t} for b, n, t in ((8, 128, 2), (1, 16, 1))]
    details = {"scenarios": scenarios, "engines": {"onnxruntime": {"speedup_interval": (1.5, 2.5)}}}
    details["engines"]["onnxruntime"]["linear_seconds"] = {"dense": 0.6, "candidate": 0.2}
    details["engines"]["onnxruntime"] |= {"dense": {"throughput": 20.0}, "candidate": {"throughput": 80.0}}
    made = record("benchmark", method="obert", sparsity=0.9, metrics=speeds, details=details)
    table = Latency().build(make_results([(made, None, 0)]))
    assert table[["batch_size", "sequence_length", "threads", "throughput"]].to_numpy().tolist() == [
        [8, 128, 2, 80.0],
        [1, 16, 1, 30.0],
    ]
    assert Latency().display(table)["speed-up"].tolist() == ["2.00 [1.50, 2.50]", "\N{EN DASH}"]
    assert Latency().display(table)["over its own"].tolist() == ["4.00", "\N{EN DASH}"]
    assert Latency().display(table)["of linear layers"].tolist() == ["3.00", "\N{EN DASH}"]
