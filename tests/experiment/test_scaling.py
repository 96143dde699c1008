"""Schedules that scale with the sparsity, against numbers worked out by hand and recipes that are published."""

from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from obert.experiment.reading import merge
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_recipe
from obert.experiment.scaling import Cycles, Scaling
from obert.foundation.errors import UserError
from obert.training.schedules import linear_with_rewinds, pruning_events, sparsity_at


@pytest.fixture
def own_recipes(tmp_path, monkeypatch):
    """Writes recipes to a folder that is worked in."""
    (tmp_path / "configs/recipes").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        text = yaml.safe_dump({"description": "x", "stage": "downstream", **content})
        (tmp_path / f"configs/recipes/{name}.yaml").write_text(text)

    return write


SMC_LEVELS = (0.2, 0.36, 0.488, 0.59, 0.672, 0.738, 0.791, 0.8325, 0.866, 0.893)
TRAINING = {"batch_size": 16, "learning_rate": {"initial": 8.0e-5, "final": 8.0e-6}}


def scaled(training=TRAINING, **scaling):
    content = {"description": "x", "stage": "downstream", "training": training, "scaling": scaling}
    return Recipe.model_validate(content)


def test_lottery_tickets_on_smc_benchs_grid_cost_two_to_eleven_cycles():
    rule = Cycles(density=0.2)
    assert [rule.at(s) for s in SMC_LEVELS] == list(range(2, 12))
    assert [rule.at(1 - 0.8**k) for k in range(1, 11)] == list(range(2, 12))


def test_other_sparsities_by_the_density_rule():
    """ln(1 - s) / ln(0.8) is 3.1, 5.4, 7.2, 10.3, 13.4 and 15.7."""
    assert [Cycles(density=0.2).at(s) for s in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97)] == [5, 7, 9, 12, 15, 17]


def test_linear_and_table_rules():
    assert [Cycles(linear=6).at(s) for s in (0, 0.5, 0.51, 0.9)] == [1, 4, 5, 7]
    rule = Cycles(table={0.9: 11, 0.5: 4})
    assert [rule.at(s) for s in (0.2, 0.5, 0.6, 0.9)] == [4, 4, 11, 11]
    with pytest.raises(ValueError, match=r"ends at 0\.9: add an entry for 0\.95"):
        rule.at(0.95)


@given(
    rule=st.one_of(
        st.builds(Cycles, constant=st.integers(1, 20)),
        st.builds(Cycles, linear=st.floats(0, 30)),
        st.builds(Cycles, density=st.floats(0.05, 0.9)),
    ),
    sparsities=st.lists(st.floats(0, 0.99), min_size=2, max_size=2),
)
def test_a_higher_sparsity_never_has_fewer_cycles(rule, sparsities):
    low, high = sorted(sparsities)
    assert 1 <= rule.at(low) <= rule.at(high)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "give one of"),
        ({"constant": 2, "linear": 3}, "give one of"),
        ({"table": {0.5: 4, 0.9: 2}}, "must not have fewer"),
    ],
)
def test_a_rule_is_one_and_does_not_fall(content, problem):
    with pytest.raises(ValueError, match=problem):
        Cycles.model_validate(content)


def test_gmp_star_is_five_or_fifteen_repetitions():
    for repetitions in (5, 15):
        found = scaled(unit_epochs=2, cycles={"constant": repetitions}, events_per_cycle=20).at(0.9)
        total = 2 * repetitions
        assert found.training.epochs == total
        assert found.training.learning_rate.rewind_epochs == tuple(range(2, total, 2))
        schedule = found.schedule
        assert (schedule.start_epoch, schedule.end_epoch, schedule.every_epochs) == (2, total - 2, 0.1)
        assert (schedule.initial_sparsity, schedule.shape) == (0.7, "cubic")
    known = load_recipe("gmp_star_10_epochs")
    found = scaled(unit_epochs=2, cycles={"constant": 5}, events_per_cycle=20).at(0.9)
    assert (found.training, found.schedule) == (known.training, known.schedule)


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("obert_10_epochs", {"cycles": {"constant": 5}, "events_per_cycle": 4, "learning_rate": "recovery"}),
        (
            "obert_30_epochs",
            {"cycles": {"constant": 15}, "events_per_cycle": 0.5, "recovery_cycles": 2, "learning_rate": "event"},
        ),
    ],
)
def test_oberts_recipes_are_special_cases(name, scaling):
    known = load_recipe(name)
    training = known.training.model_dump(exclude={"epochs"})
    del training["learning_rate"]["rewind_epochs"]
    found = scaled(training, unit_epochs=2, **scaling).at(0.9)
    assert (found.training, found.schedule) == (known.training, known.schedule)


def test_smc_benchs_gradual_pruning_is_one_cycle_with_a_window():
    """3000 updates, an event every 500 of them from 10 to 80 %: 25.9, 70.4, 92.1 and 99.3 % of the target."""
    found = scaled(
        unit_epochs=4.93,
        cycles={"constant": 1},
        dense_cycles=0.1,
        recovery_cycles=0.2,
        initial_sparsity=0,
        events_per_cycle=6,
        learning_rate="once",
    ).at(0.8)
    assert found.training.epochs == 4.93 and found.training.learning_rate.rewind_epochs == ()
    schedule = found.schedule
    assert (schedule.start_epoch, schedule.end_epoch) == (0.493, round(0.8 * 4.93, 6))
    assert schedule.every_epochs == pytest.approx(4.93 * 500 / 3000, abs=1e-6)
    progress = [(step - 300) / 2100 for step in (500, 1000, 1500, 2000)]
    shares = [sparsity_at(p, schedule.initial_sparsity, 0.8, schedule.shape) / 0.8 for p in progress]
    assert shares == pytest.approx([0.259, 0.704, 0.921, 0.993], abs=5e-4)


def test_lottery_tickets_prune_a_fifth_of_the_survivors_each_cycle():
    recipe = scaled(unit_epochs=3, cycles={"density": 0.2}, initial_sparsity=0.2, events_per_cycle=1, shape="geometric")
    for k in (1, 4, 10):
        target = 1 - 0.8**k
        events = pruning_events(recipe.at(target).schedule, 100, target)
        assert list(events) == [300 * (i + 1) for i in range(k)]
        assert list(events.values()) == pytest.approx([1 - 0.8 ** (i + 1) for i in range(k)])


def test_equal_compute_gives_every_sparsity_the_longest_or_the_mean():
    """5, 9 and 12 cycles at 50, 80 and 90 %."""
    for length, cycles in (("longest", 12), ("mean", 9)):
        recipe = scaled(unit_epochs=2, cycles={"density": 0.2}, equal_compute={"length": length, "of": [0.5, 0.8, 0.9]})
        assert [recipe.at(s).training.epochs for s in (0.5, 0.8, 0.9)] == [2 * cycles] * 3


RULES = st.builds(
    Scaling,
    unit_epochs=st.sampled_from((0.3, 1, 2, 4.93)),
    cycles=st.one_of(st.builds(Cycles, density=st.floats(0.1, 0.5)), st.builds(Cycles, constant=st.integers(2, 15))),
    dense_cycles=st.floats(0, 1),
    recovery_cycles=st.floats(0.1, 1),
    initial_share=st.floats(0, 1),
    events_per_cycle=st.sampled_from((1, 3, 10)),
    shape=st.sampled_from(("cubic", "linear", "geometric")),
    learning_rate=st.sampled_from(("cycle", "event", "recovery", "once")),
)


@given(scaling=RULES, sparsity=st.floats(0.2, 0.97))
def test_the_target_is_reached_exactly_before_recovery(scaling, sparsity):
    recipe = scaled(**scaling.model_dump()).at(sparsity)
    steps = 1000
    events = pruning_events(recipe.schedule, steps, sparsity)
    assert max(events.values()) == events[max(events)] == sparsity
    assert max(events) <= (recipe.training.epochs - scaling.unit_epochs * scaling.recovery_cycles) * steps + 1
    assert all(before <= after for before, after in pairwise(events.values()))
    assert recipe.at(sparsity) == recipe


def test_a_warm_up_is_repeated_in_every_cycle():
    recipe = scaled({"learning_rate": {"initial": 1.0, "final": 0, "warmup_epochs": 0.2}}, unit_epochs=1,
                    cycles={"constant": 3}).at(0.9)  # fmt: skip
    rates = [linear_with_rewinds(step, 30, 10, recipe.training.learning_rate) for step in range(30)]
    assert rates[:10] == pytest.approx([0, 0.5, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0])
    assert rates[10:20] == pytest.approx(rates[:10]) and rates[20:] == pytest.approx(rates[:10])


def test_no_room_for_pruning_is_told():
    with pytest.raises(ValueError, match="1 cycles at sparsity 0 leave no room for 1 dense cycles"):
        scaled(unit_epochs=2, cycles={"linear": 6}).at(0)


def test_what_scaling_decides_is_not_given_twice(tmp_path, monkeypatch):
    folder = tmp_path / "configs/recipes"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = "description: x\nstage: downstream\nscaling: {unit_epochs: 2, cycles: {constant: 5}}\n"
    text += "training: {epochs: 3, learning_rate: {initial: 1.0e-4}}\n"
    (folder / "twice.yaml").write_text(text)
    with pytest.raises(UserError, match=r"'scaling' decides training\.epochs: leave out one of the two"):
        load_recipe("twice")
    (folder / "stage.yaml").write_text(text.replace("epochs: 3, ", "").replace("downstream", "teacher"))
    with pytest.raises(UserError, match="'scaling' goes by the sparsity that a run prunes to"):
        load_recipe("stage")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"training": "x"}, "key 'training': Input should be a valid dictionary"),
        ({"training": {"learning_rate": 1e-4}}, "key 'training.learning_rate': Input should be a valid dictionary"),
        ({"training": None}, "whose learning rate 'training' has to give"),
        ({"scaling": 5}, "key 'scaling': Input should be a valid dictionary"),
        ({"scaling": {"unit_epochs": float("inf")}}, "key 'scaling.unit_epochs': Input should be a finite number"),
        ({"scaling": {"unit_epochs": "two"}}, "key 'scaling.unit_epochs': Input should be a valid number"),
        ({"scaling": {"dense_cycles": float("nan")}}, "key 'scaling.dense_cycles': Input should be a finite number"),
        ({"scaling": {"cycles": {"constant": 10**7}}}, "key 'scaling.cycles.constant': Input should be less than"),
    ],
)
def test_a_mistake_is_told_once_and_where_it_is(own_recipes, content, problem):
    own_recipes("own", merge({"training": TRAINING, "scaling": {"unit_epochs": 2, "cycles": {"constant": 5}}}, content))
    with pytest.raises(UserError) as error:
        load_recipe("own")
    assert problem in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("scaling", "problem"),
    [
        ({"cycles": {"linear": 1e12}}, r"scaling\.cycles\.linear 1e\+12 gives 5e\+11 cycles .* Lower it"),
        ({"cycles": {"density": 1e-9}}, r"scaling\.cycles\.density 1e-09 gives .* at most 1000 are run\. Raise it"),
        ({"events_per_cycle": 1e9}, r"1e\+09 events in a cycle of 2 epochs .* Lower events_per_cycle"),
    ],
)
def test_too_many_cycles_or_events_are_told_and_not_listed(scaling, problem):
    with pytest.raises(ValueError, match=problem):
        scaled(**{"unit_epochs": 2, "cycles": {"constant": 5}, **scaling}).at(0.5)


def test_a_schedule_that_is_extended_is_unset_with_null(own_recipes):
    plain = {"epochs": 3, "learning_rate": {"initial": 1e-4, "rewind_epochs": [1, 2]}}
    own_recipes("plain", {"training": plain, "schedule": {"end_epoch": 2}})
    own = {"extends": "plain", "scaling": {"unit_epochs": 2, "cycles": {"constant": 5}}}
    own_recipes("own", own)
    with pytest.raises(UserError, match="schedule: null"):
        load_recipe("own")
    unset = {"schedule": None, "training": {"epochs": None, "learning_rate": {"rewind_epochs": None}}}
    own_recipes("own", own | unset)
    assert load_recipe("own").at(0.9).training.epochs == 10
