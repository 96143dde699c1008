"""Each metric's interval against a plain loop over resamples of seeds and examples, judged by other libraries."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from seqeval.metrics import f1_score as f1_of_entities
from seqeval.metrics import precision_score, recall_score
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from obert.records.record import Score
from obert.tables.metrics import Metrics
from obert.tasks.cola import CoLA
from obert.tasks.mrpc import MRPC
from obert.tasks.stsb import STSB
from obert.tasks.tagging import Tagging
from tables.examples import record

EXAMPLES = 120
RNG = np.random.default_rng(5)
TRUE = RNG.random(EXAMPLES) < 0.7
NUMBERS = RNG.integers(0, 6, EXAMPLES).astype(float)
TAGS = [["B-PER" if word else "O" for word in row] for row in RNG.random((EXAMPLES, 3)) < 0.3]


class Judge:
    """A task with the examples' right answers: how it scores, how other libraries do, and what seeds predicted."""

    def __init__(self, kind, labels, predicted, by_hand):
        self.kind, self.labels, self.predicted, self.by_hand = kind, labels, predicted, by_hand

    def rows(self, seed):
        pairs = zip(self.predicted[seed], self.labels, strict=True)
        return [{"id": str(i), "prediction": given, "label": true} for i, (given, true) in enumerate(pairs)]


class Columns:
    """Examples as far as a task's score asks for them."""

    def __init__(self, task):
        self.features = {"label": type("Names", (), {"names": list(getattr(task, "labels", ()))})}


def named(task, flags):
    return [task.labels[int(flag)] for flag in flags]


def of_classes(kind, by_hand):
    noise = [RNG.random(EXAMPLES) < rate for rate in (0.15, 0.3)]
    return Judge(kind, named(kind, TRUE), [named(kind, TRUE ^ flipped) for flipped in noise], by_hand)


def mixed(rate):
    return [row if keep else row[::-1] for row, keep in zip(TAGS, RNG.random(EXAMPLES) > rate, strict=True)]


def on_rows(metric):
    return lambda true, given: metric([list(row) for row in true], [list(row) for row in given])


JUDGES = {
    "mrpc": of_classes(MRPC, {
        "accuracy": accuracy_score,
        "f1": lambda true, given: f1_score(true, given, pos_label=MRPC.labels[1]),
    }),
    "cola": of_classes(CoLA, {"matthews": matthews_corrcoef, "accuracy": accuracy_score}),
    "stsb": Judge(STSB, NUMBERS.tolist(), [(NUMBERS + RNG.normal(0, s, EXAMPLES)).round(1).tolist() for s in (1, 3)], {
        "pearson": lambda true, given: stats.pearsonr(true, given).statistic,
        "spearman": lambda true, given: stats.spearmanr(true, given).statistic,
    }),
    "tagging": Judge(Tagging, TAGS, [mixed(0.3), mixed(0.8)], {
        "f1": on_rows(f1_of_entities), "precision": on_rows(precision_score), "recall": on_rows(recall_score),
    }),
}  # fmt: skip


def results_of(make_results, name, seeds=(0, 1)):
    judge, runs, files = JUDGES[name], [], {}
    options = {"source": "x"} if name == "tagging" else {}
    for seed in seeds:
        task, rows = judge.kind(**options), judge.rows(seed)
        metrics = task.score(rows, Columns(task))
        made = record("downstream", task="mine", method="obert", sparsity=0.9, seed=seed, spec={"task": {"kind": name}})
        made = made.model_copy(update={"metrics": metrics, "primary_metric": task.primary_metric})
        runs.append((made, None, 0))
        files[made.key] = rows
    results = make_results(runs)
    for key, rows in files.items():
        path = results.folder / key.path / "predictions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return results


def looped(judge, metric, resamples=1500):
    """The interval of the metric of two seeds, in percent: over drawn examples, and over seeds by hand."""
    rng, values = np.random.default_rng(9), []
    for _ in range(resamples):
        examples = rng.integers(0, EXAMPLES, EXAMPLES)
        true = [judge.labels[i] for i in examples]
        drawn = [[predicted[i] for i in examples] for predicted in judge.predicted]
        values.append(np.mean([100 * metric(true, given) for given in drawn]))
    first, second = (100 * metric(judge.labels, predicted) for predicted in judge.predicted)
    by_seeds = 12.706 * abs(first - second) / 2  # Student's t of one degree of freedom; the standard error of two
    mean, bounds = (first + second) / 2, np.percentile(values, [2.5, 97.5])
    return mean + np.array([-1, 1]) * np.hypot(bounds - mean, by_seeds), np.std(values)


CASES = [(name, metric) for name, judge in JUDGES.items() for metric in judge.by_hand]


@pytest.mark.parametrize(("name", "metric"), CASES)
def test_intervals_are_of_the_metric_over_seeds_and_examples(make_results, name, metric):
    rows = Metrics().build(results_of(make_results, name)).set_index("metric")
    judge = JUDGES[name]
    assert list(rows.index) == sorted(rows.index, key=lambda m: (m != judge.kind.primary_metric, m))
    values = [100 * judge.by_hand[metric](judge.labels, predicted) for predicted in judge.predicted]
    assert rows.loc[metric, "score_mean"] == pytest.approx(np.mean(values))
    (low, high), spread = looped(judge, judge.by_hand[metric])
    assert rows.loc[metric, "score_low"] == pytest.approx(low, abs=0.25 * spread)
    assert rows.loc[metric, "score_high"] == pytest.approx(high, abs=0.25 * spread)


def test_one_seed_is_marked_and_what_is_not_known_is_a_dash(make_results):
    results = results_of(make_results, "stsb", seeds=(0,))
    metrics = results.records[0].metrics | {"unheard_of": Score(value=1.0, count=EXAMPLES)}
    results.records[0].metrics.update(metrics)
    table = Metrics()
    content = table.build(results)
    shown = table.display(content).set_index("metric")["95 % interval"]
    assert shown["spearman"].endswith("(one seed)") and shown["unheard_of"] == "\N{EN DASH}"
    assert math.isnan(content.set_index("metric").loc["unheard_of", "chance"])
