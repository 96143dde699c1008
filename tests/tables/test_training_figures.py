"""Training curves and sparsity by layer."""

import pytest

from obert.masks.counts import LayerSparsity, Sparsity
from obert.tables.layer_sparsity import LayerSparsity as LayerSparsityFigure
from obert.tables.training_curves import TrainingCurves
from tables.examples import record

QUERY, OUTPUT = "bert.encoder.layer.1.attention.self.query.weight", "bert.encoder.layer.11.output.dense.weight"


def _made(seed, zeros, sparsity=0.5):
    made = record("downstream", 70.0, method="obert", sparsity=sparsity, seed=seed)
    layers = {name: LayerSparsity(zeros=count, size=100) for name, count in zeros.items()}
    return made.model_copy(update={"sparsity": Sparsity(target=sparsity, measured=sparsity, layers=layers)}), None, 0


def test_layer_sparsity_names_layers_and_averages_over_seeds(make_results):
    runs = [_made(0, {QUERY: 40, OUTPUT: 60, "classifier": 50}), _made(1, {QUERY: 44, OUTPUT: 56, "classifier": 50})]
    found = LayerSparsityFigure().build(make_results(runs))
    assert found[["layer", "matrix"]].to_numpy().tolist() == [[1, "Q"], [11, "F2"], [-1, "classifier"]]
    assert found["layer_sparsity"].tolist() == pytest.approx([0.42, 0.58, 0.5])
    assert found["n"].tolist() == [2, 2, 2]


def test_layer_sparsity_draws_each_method_at_its_highest_sparsity(make_results):
    figure = LayerSparsityFigure()
    runs = [_made(0, {QUERY: 40, OUTPUT: 60}), _made(0, {QUERY: 88, OUTPUT: 92}, sparsity=0.9)]
    axis = figure.draw(figure.build(make_results(runs))).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["gradual: obert, 90 %"]
    assert [text.get_text() for text in axis.texts] == ["88", "92"]
    assert axis.collections[0].get_array().ravel().tolist() == pytest.approx([-2, 2])


def test_training_curves_show_a_running_mean_of_the_first_seed(make_results):
    """1 / step over 100 steps, means of 3 (2 and 1 at the start): at step 3, (1 + 1/2 + 1/3) / 3."""
    runs = [
        (record("downstream", 70.0, method="obert", sparsity=0.9, seed=0), None, 100),
        (record("downstream", 70.0, method="obert", sparsity=0.9, seed=1), None, 50),
        (record("downstream", 70.0, method="obert", sparsity=0.9, recipe="one_shot"), None, 0),
    ]
    found = TrainingCurves().build(make_results(runs))
    assert len(found) == 100 and set(found["recipe"]) == {"gradual"}
    assert found["loss"].tolist()[:3] == pytest.approx([1, 3 / 4, 11 / 18])
