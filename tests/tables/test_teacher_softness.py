"""Softness of teachers from logits that were kept, against values that can be worked out by hand."""

import json
import math

import pytest

from obert.foundation.errors import UserError
from obert.report.built import build_table
from obert.tables.teacher_softness import EXAMPLES, TeacherSoftness
from tables.examples import record


def built(results):
    return build_table("teacher_softness", TeacherSoftness(), results)


def kept(results, task, rows):
    """Writes a teacher's logits, a feature a row."""
    lines = [json.dumps({"id": str(i), "logits": logits}) for i, logits in enumerate(rows)]
    path = results.folder / results.dense(task).key.path / "teacher_logits.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def value(content, quantity, statistic, temperature, output="logits"):
    row = content[(content["quantity"] == quantity) & (content["statistic"] == statistic)]
    (found,) = row[(row["temperature"] == temperature) & (row["output"] == output)]["value"]
    return found


@pytest.fixture
def of_classes(make_results):
    results = make_results([(record("teacher", 90.0), None, 0)])
    kept(results, "movie_reviews", [{"logits": [[2 * math.log(3), 0]]}, {"logits": [[0, 0]]}])
    return results


def test_entropy_and_top_probability_by_temperature(of_classes):
    """One example is 9 : 1 at T = 1 and 3 : 1 at T = 2, the other is uniform at any T."""
    content = built(of_classes).content
    for temperature, top in ((1.0, 0.9), (2.0, 0.75)):
        entropy = -(top * math.log2(top) + (1 - top) * math.log2(1 - top))
        assert value(content, "entropy / ln n", "mean", temperature) == pytest.approx((entropy + 1) / 2)
        assert value(content, "top probability", "mean", temperature) == pytest.approx((top + 0.5) / 2)
    assert value(content, "surest: 0", "1", 2.0) == pytest.approx(0.75)
    assert value(content, "least sure: 1", "2", 2.0) == pytest.approx(0.5)
    assert set(content["distributions"]) == {2} and set(content["outcomes"]) == {2}
    axes = built(of_classes).figure.axes
    assert len(axes) == 2 + len(EXAMPLES) and axes[0].get_title() == "movie_reviews, logits"


def test_question_answering_has_a_distribution_over_positions_for_start_and_for_end(make_results):
    """Features of different lengths: uniform ones are of entropy 1 whatever the length."""
    made = record("teacher", 80.0, task="city_qa")
    results = make_results([(made, None, 0)])
    rows = [{"start_logits": [[0.0] * n], "end_logits": [[50.0] + [0.0] * (n - 1)]} for n in (4, 16)]
    kept(results, "city_qa", rows)
    found = built(results)
    assert value(found.content, "entropy / ln n", "mean", 1.0, "start_logits") == pytest.approx(1)
    assert value(found.content, "top probability", "mean", 1.0, "start_logits") == pytest.approx((1 / 4 + 1 / 16) / 2)
    assert value(found.content, "entropy / ln n", "mean", 1.0, "end_logits") == pytest.approx(0, abs=1e-6)
    assert found.shown["output"].unique().tolist() == ["start_logits", "end_logits"]
    assert found.shown["n"].unique().tolist() == ["10"] and len(found.figure.axes) == 2 * (2 + len(EXAMPLES))


def test_a_feature_with_several_distributions_counts_each(make_results):
    results = make_results([(record("teacher", 90.0, task="tagging"), None, 0)])
    kept(results, "tagging", [{"logits": [[0, 0, 0], [0, 0, 0]]}, {"logits": []}, {"logits": [[100, 0, 0]]}])
    content = built(results).content
    assert set(content["distributions"]) == {3}
    assert value(content, "entropy / ln n", "mean", 1.0) == pytest.approx(2 / 3)


def test_teachers_that_kept_no_logits_are_named_with_what_to_run(make_results):
    """Records from before logits were kept are read as ever; numbers have no distributions at all."""
    old, number = record("teacher", 90.0), record("teacher", 80.0, task="stsb")
    found = built(make_results([(old, (100, 0, 100, 100), 5), (number, None, 0)]))
    assert found.content.empty
    numbers, absent = found.notes
    assert numbers.text.endswith("stsb.") and "movie_reviews" in absent.text
    assert absent.lines == (
        "python -m obert teacher --config configs/example.yaml --task movie_reviews --recipe dense --seed 0",
    )


def test_scores_of_a_choice_among_the_predictions_serve_as_well(make_results):
    made = record("teacher", 50.0, task="commonsense_qa")
    results = make_results([(made, None, 0)])
    path = results.folder / made.key.path / "predictions.jsonl"
    path.write_text(json.dumps({"id": "a", "prediction": 0, "score": 100, "scores": [0.0, 0.0, 0.0, 0.0, 0.0]}) + "\n")
    found = built(results)
    assert value(found.content, "entropy / ln n", "mean", 1.0) == pytest.approx(1) and not found.notes
    kept(results, "commonsense_qa", [{"logits": [[90.0, 0.0, 0.0, 0.0, 0.0]]}])
    assert value(built(results).content, "top probability", "mean", 1.0) == pytest.approx(1)


@pytest.mark.parametrize("line", ["nothing", '{"id": 1}', '{"id": 1, "logits": {"logits": [1, 2]}}', '{"logits": 3}'])
def test_a_damaged_file_is_named_with_the_line(of_classes, line):
    path = kept(of_classes, "movie_reviews", [])
    path.write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"teacher_logits\.jsonl, line 1 is damaged .* Run python -m obert teacher"):
        built(of_classes)
