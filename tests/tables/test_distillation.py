"""The grid of hardness and temperature against trials and records whose means can be worked out by hand."""

import math

import pandas as pd
import pytest

from obert.report.built import build_table
from obert.tables.distillation import DistillationGrid
from tables.examples import record

H, T = "distillation.hardness", "distillation.temperature"
POINTS = {0: (0.0, None), 1: (0.5, 2.0), 2: (0.5, 5.5), 3: (1.0, 2.0), 4: (1.0, 5.5)}
# By trial, what is added to 90 at 50 % and to 80 at 90 %; seed 101 scores 1 more than seed 100.
GAINS = {0: (0.0, 0.0), 1: (1.0, 1.0), 2: (1.0, 4.0), 3: (2.0, 2.0), 4: (2.0, 3.5)}


def trials(failing=(), without=()):
    rows = []
    for number, (hardness, temperature) in POINTS.items():
        constant = {"experiment": "example", "model": "example, 2 layers", "base": "gradual", "held_out": 0.2}
        state = "failed" if number in failing else "complete"
        mean = sum(GAINS[number]) / 2 + 85.5
        trial = {"trial": number, "state": state, "objective": None if number in failing else mean}
        for (base, sparsity), gain in zip(((90, 0.5), (80, 0.9)), GAINS[number], strict=True):
            for seed in (100, 101):
                run = {"task": "movie_reviews", "method": "magnitude", "sparsity": sparsity, "seed": seed}
                run |= {"metric": "accuracy", "score": base + gain + seed - 100, "count": 800, "seconds": 1.0}
                rows.append(constant | trial | {H: hardness, T: temperature} | run | {"dense": 92.0, "error": None})
    return pd.DataFrame(rows).drop(columns=list(without))


def built(results):
    return build_table("distillation", DistillationGrid(), results)


def test_a_sweep_is_a_grid_with_the_chosen_values_marked(make_results, example_runs):
    found = built(make_results(example_runs, sweeps={"kd": trials()}))
    content = found.content
    assert len(content) == 10 and set(content["compared"]) == {"sweep kd"}
    cell = content[(content["hardness"] == 1) & (content["temperature"] == 5.5)].sort_values("sparsity")
    assert cell["mean"].tolist() == pytest.approx([92.5, 84.0]) and cell["n"].tolist() == [2, 2]
    assert cell["std"].tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert cell["chosen"].all() and content["chosen"].sum() == 2
    shown = found.shown
    assert list(shown.columns[-4:]) == ["h", "without", "T = 2", "T = 5.5"]
    assert shown["h"].tolist() == ["0", "0.5", "1"] * 2
    assert shown["without"].tolist() == ["90.50 ± 0.71 (n=2)", "", "", "80.50 ± 0.71 (n=2)", "", ""]
    assert shown["T = 5.5"].tolist()[2] == "92.50 ± 0.71 (n=2) *" and shown["T = 2"].tolist()[0] == ""


def test_what_cannot_be_told_apart_is_said(make_results, example_runs):
    """Differences from the chosen trial by sparsity: 2, 3.5 / 1, 2.5 / 1, -0.5 / 0, 1.5, each for two seeds. Their
    standard errors are half the standard deviation of four: 0.43 each. Only 0.25 is within one of them."""
    _, choice = built(make_results(example_runs, sweeps={"kd": trials()})).notes
    assert "movie_reviews: the highest mean, 88.25, is that of h = 1, T = 5.5;" in choice.text
    assert "without distillation it is 85.50" in choice.text
    assert "Of the other 4 cells 1 are within one standard error" in choice.text


def test_failed_trials_are_not_chosen(make_results, example_runs):
    content = built(make_results(example_runs, sweeps={"kd": trials(failing=(4,))})).content
    assert content.loc[content["chosen"], ["hardness", "temperature"]].drop_duplicates().to_numpy().tolist() == [
        [0.5, 5.5]
    ]
    everything = range(len(POINTS))
    assert built(make_results(example_runs, sweeps={"kd": trials(failing=everything)})).content.empty


def test_temperatures_at_hardness_0_are_one_cell(make_results, example_runs):
    """As a sweep without `unless` tries them: the same runs several times, which are counted once."""
    several = trials()
    again = several[several["trial"] == 0].assign(trial=9)
    several = pd.concat([several.fillna({T: 2.0}), again.assign(**{T: 5.5})], ignore_index=True)
    content = built(make_results(example_runs, sweeps={"kd": several})).content
    without = content[content["hardness"] == 0]
    assert without["n"].tolist() == [2, 2] and without["temperature"].isna().all()


def test_a_sweep_of_another_key_is_no_grid(make_results, example_runs):
    found = built(make_results(example_runs, sweeps={"kd": trials(without=(T,))}))
    assert found.content.empty and "No sweep of this experiment varies" in found.notes[0].text
    found = built(make_results(example_runs, sweeps={"distillation": pd.DataFrame()}))
    assert found.notes[0].lines == ("python -m obert sweep --config configs/sweeps/distillation.yaml",)


def taught(recipe, value, distillation, sparsity=0.9, epochs=10.0, seed=0):
    spec = {"recipe": {"training": {"epochs": epochs}, "distillation": distillation}, "task": {"max_length": 64}}
    return record("downstream", value, recipe=recipe, method="magnitude", sparsity=sparsity, seed=seed, spec=spec)


def test_runs_are_compared_that_differ_in_distillation_alone(make_results):
    both = {"hardness": 1.0, "temperature": 2.0}
    made = [
        record("teacher", 92.0),
        taught("guided", 88.0, both),
        taught("guided", 89.0, both, seed=1),
        taught("alone", 85.0, None),
        taught("longer", 90.0, None, epochs=20.0),  # nothing to compare it with
        taught("guided", 80.0, both, sparsity=0.97),
    ]
    found = built(make_results([(one, None, 0) for one in made])).content
    assert set(found["compared"]) == {"runs guided, alone"} and set(found["sparsity"]) == {0.9}
    assert found[["hardness", "mean", "n", "dense"]].to_numpy().tolist() == [[1, 88.5, 2, 92], [0, 85, 1, 92]]
    assert found["temperature"].isna().tolist() == [False, True] and not found["chosen"].any()
