import math

import pytest

from obert.tables.leaderboard_over_tasks import LeaderboardOverTasks
from tables.conftest import key
from tables.examples import record

SECOND = "city_qa"


def pruned(task, method, seed, scores, **fields):
    made = record("downstream", sum(scores) / 4, task=task, method=method, sparsity=0.9, seed=seed, **fields)
    return made, scores, 0


RIGHT, THREE = (100, 100, 100, 100), (100, 100, 100, 0)


@pytest.fixture
def recovered(make_results):
    """Of oBERT, seed 0 is right on all of the first task, seed 1 on three examples of four."""
    return of_two_tasks(make_results, (RIGHT, THREE))


def of_two_tasks(make_results, obert):
    """Dense 80 and 50, chance 20 and 0. On the first task oBERT is as given, by seed, and magnitude far behind; on the
    second they are level, at 50; movement has one task only."""
    half, none = (100, 100, 0, 0), (0, 0, 0, 0)
    details = {"majority_rate": 20.0}
    runs = [(record("teacher", 80.0, details=details), None, 0), (record("teacher", 50.0, task=SECOND), None, 0)]
    runs += [pruned("movie_reviews", "obert", seed, scores) for seed, scores in enumerate(obert)]
    runs += [pruned("movie_reviews", "magnitude", seed, none) for seed in (0, 1)]
    runs += [pruned("movie_reviews", "movement", seed, RIGHT) for seed in (0, 1)]
    runs += [pruned(SECOND, method, seed, half) for method in ("obert", "magnitude") for seed in (0, 1)]
    return make_results(runs, planned=[key("obert", 0.97)])


def test_recovery_is_averaged_over_tasks_with_its_spread_over_seeds(recovered):
    """oBERT: seed 0 (80 / 60 + 1) / 2, seed 1 (55 / 60 + 1) / 2. Magnitude: (-20 / 60 + 1) / 2 twice."""
    rows = LeaderboardOverTasks().build(recovered).set_index("method")
    assert list(rows.index) == ["obert", "magnitude"]
    assert rows.loc["obert", "recovery_mean"] == pytest.approx(100 * (80 / 60 + 55 / 60 + 2) / 4)
    assert rows.loc["obert", "recovery_std"] == pytest.approx(100 * 25 / 60 / 2 / math.sqrt(2))
    assert rows.loc["magnitude", ["recovery_mean", "recovery_std", "n"]].tolist() == pytest.approx([100 / 3, 0.0, 2])
    names = ["movie_reviews_chance", "movie_reviews_recovery", "city_qa_chance", "city_qa_recovery"]
    assert rows.loc["obert", names].tolist() == pytest.approx([20, 112.5, 0, 100])
    assert rows.loc["obert", "seconds"] == 12


def test_ranks_and_differences_are_over_all_compared_tasks(recovered):
    """The first task's difference of 87.5 points (over 60: 145.8 of recovery), halved, is the whole difference. Seeds
    that are 25 points apart have a standard error of 12.5, and Student's t is 12.7: so it proves nothing. Examples add
    little: their percentiles lie where the one that seed 1 has wrong is drawn never, and three times in four."""
    rows = LeaderboardOverTasks().build(recovered).set_index("method")
    assert rows["rank"].tolist() == [1, 1] and rows["mean_rank"].tolist() == [1, 1]
    found = rows.loc["magnitude", ["difference", "difference_low", "difference_high"]].tolist()
    low, high = (math.hypot(12.706 * 12.5, by_examples) for by_examples in (12.5, 25))
    assert found == pytest.approx([lead / 0.6 / 2 for lead in (-87.5, -87.5 - low, -87.5 + high)], abs=0.01)


def test_ranks_are_of_the_difference_over_tasks(make_results):
    """Where seeds agree: oBERT 1 and 1 on the single tasks, magnitude 2 and 1 (level)."""
    rows = LeaderboardOverTasks().build(of_two_tasks(make_results, (THREE, THREE))).set_index("method")
    assert rows["rank"].tolist() == [1, 2] and rows["mean_rank"].tolist() == [1, 1.5]


def test_notes_say_what_was_compared_and_what_is_missing(recovered):
    pool, left_out = LeaderboardOverTasks().notes(recovered)
    assert pool.text == (
        "Compared here (the pool): tasks movie_reviews, city_qa; methods magnitude, movement, obert; seeds 0, 1; "
        "budgets gradual 10 epochs; made on Example CPU, 1 thread."
    )
    assert left_out.lines == ("gradual: movement, 90 %",)


def test_a_row_without_a_seed_on_every_task_is_left_out_and_named(make_results):
    """Of a study under way: a mean over no seed is no number, and would stand anywhere among the others."""
    half, three, right = (100, 100, 0, 0), (100, 100, 100, 0), (100, 100, 100, 100)
    details = {"majority_rate": 0.0}
    runs = [(record("teacher", 80.0, task=task, details=details), None, 0) for task in ("movie_reviews", SECOND)]
    runs += [pruned("movie_reviews", "magnitude", 0, right), pruned(SECOND, "magnitude", 1, right)]
    for method, scores in (("movement", half), ("obert", three)):
        runs += [pruned(task, method, 0, scores) for task in ("movie_reviews", SECOND)]
    table, results = LeaderboardOverTasks(), make_results(runs)
    rows = table.build(results)
    assert rows["method"].tolist() == ["obert", "movement"], "the best first"
    assert rows["difference"].tolist()[1] == pytest.approx(-25 / 0.8), "to the best"
    _, left_out = table.notes(results)
    assert left_out.text == "1 rows are left out, because no seed is on every task:"
    assert left_out.lines == ("gradual: magnitude, 90 %",)


def test_one_task_gives_an_empty_table_and_says_why(results):
    table = LeaderboardOverTasks()
    assert table.build(results).empty
    assert "needs two tasks or more" in table.notes(results)[0].text
