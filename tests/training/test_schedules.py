"""Schedules against sequences derived by hand from oBERT's settings (Kurtic et al. 2022, Table 9) and recipes."""

import pytest

from obert.experiment.recipe import LearningRate, SparsitySchedule, Training
from obert.foundation.errors import UserError
from obert.training.schedules import check_steps, linear_with_rewinds, pruning_events, sparsity_at


@pytest.mark.parametrize(
    ("initial", "final", "expected"),
    [
        (0.7, 0.80, [0.700, 0.742, 0.770, 0.788, 0.796, 0.800, 0.800]),
        (0.7, 0.90, [0.700, 0.784, 0.841, 0.875, 0.893, 0.899, 0.900]),
        (0.7, 0.97, [0.700, 0.814, 0.890, 0.936, 0.960, 0.969, 0.970]),
        (0.3, 0.90, [0.300, 0.553, 0.722, 0.825, 0.878, 0.897, 0.900]),
    ],
)
def test_thirty_epoch_recipe_prunes_seven_times(initial, final, expected):
    schedule = SparsitySchedule(start_epoch=2, end_epoch=26, every_epochs=4, initial_sparsity=initial)
    events = pruning_events(schedule, steps_per_epoch=100, final=final)
    assert list(events) == [200, 600, 1000, 1400, 1800, 2200, 2600]
    assert [round(s, 3) for s in events.values()] == pytest.approx(expected, abs=1e-3)
    assert list(events.values())[-1] == final


def test_ten_epoch_recipe_prunes_thirteen_times():
    schedule = SparsitySchedule(start_epoch=2, end_epoch=8, every_epochs=0.5)
    events = pruning_events(schedule, steps_per_epoch=10, final=0.9)
    assert list(events) == list(range(20, 81, 5))
    assert list(events.values()) == sorted(events.values())


def test_window_that_is_no_multiple_of_the_interval_ends_at_the_target():
    events = pruning_events(SparsitySchedule(end_epoch=2.5, every_epochs=1), steps_per_epoch=4, final=0.9)
    assert list(events) == [0, 4, 8, 10]
    assert events[10] == 0.9


def test_single_event_goes_straight_to_the_target():
    assert pruning_events(SparsitySchedule(start_epoch=1, end_epoch=1), steps_per_epoch=4, final=0.9) == {4: 0.9}


def test_events_closer_than_a_step_are_refused():
    with pytest.raises(UserError, match=r"every_epochs 0\.1 is less than one optimiser step"):
        pruning_events(SparsitySchedule(end_epoch=1, every_epochs=0.1), steps_per_epoch=3, final=0.9)


def test_cubic_midpoint():
    # 0.9 - 0.2 * 0.5^3 = 0.875
    assert sparsity_at(0.5, 0.7, 0.9, "cubic") == pytest.approx(0.875)


def test_learning_rate_falls_linearly_and_rewinds():
    rate = LearningRate(initial=1.0, final=0.1, rewind_epochs=(1, 2))
    rates = [linear_with_rewinds(step, 10, steps_per_epoch=4, rate=rate) for step in range(10)]
    # cycles of 4, 4 and 2 steps; within a cycle of C steps: 1 - 0.9 * i / (C - 1)
    assert rates == pytest.approx([1.0, 0.7, 0.4, 0.1, 1.0, 0.7, 0.4, 0.1, 1.0, 0.1])


def test_each_cycle_may_end_at_a_rate_of_its_own():
    rate = LearningRate(initial=1.0, final=(0.1, 0.4), rewind_epochs=(1,))
    rates = [linear_with_rewinds(step, 8, steps_per_epoch=4, rate=rate) for step in range(8)]
    assert rates == pytest.approx([1.0, 0.7, 0.4, 0.1, 1.0, 0.8, 0.6, 0.4])
    with pytest.raises(ValueError, match="final has 2 rates for 3 cycles"):
        LearningRate(initial=1.0, final=(0.1, 0.4), rewind_epochs=(1, 2))


def test_learning_rate_after_the_last_step_stays_at_its_final_value():
    rate = LearningRate(initial=1.0, final=0.1)
    assert linear_with_rewinds(10, 10, steps_per_epoch=4, rate=rate) == pytest.approx(0.1)


def test_lottery_rounds_remove_a_tenth_of_the_original_weights_each():
    schedule = SparsitySchedule(start_epoch=4, end_epoch=36, every_epochs=4, initial_sparsity=0.1, shape="linear")
    events = pruning_events(schedule, steps_per_epoch=10, final=0.9)
    assert list(events) == list(range(40, 361, 40))
    assert list(events.values()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_reranking_goes_on_at_the_target():
    schedule = SparsitySchedule(
        start_epoch=0.5, end_epoch=1.5, every_steps=2, initial_sparsity=0, rerank_until_epoch=2.5
    )
    events = pruning_events(schedule, steps_per_epoch=4, final=0.8)
    # 0.8 - 0.8 * (1 - x)^3 at x = 0, 1/2, 1
    assert events == {2: 0.0, 4: pytest.approx(0.7), 6: 0.8, 8: 0.8, 10: 0.8}


def test_every_step_prunes_at_every_step_of_a_window_of_odd_length():
    schedule = SparsitySchedule(start_epoch=0.3, end_epoch=1.7, every_steps=1)
    assert list(pruning_events(schedule, steps_per_epoch=7, final=0.8)) == list(range(2, 13))


def test_warm_up_and_a_constant_phase_come_before_the_decay():
    rate = LearningRate(initial=1.0, final=0.2, warmup_epochs=0.5, constant_until_epoch=1.25)
    rates = [linear_with_rewinds(step, 10, steps_per_epoch=4, rate=rate) for step in range(10)]
    # 2 steps of warm-up from 0, constant until step 5, then 5 steps: 1 - 0.8 * i / 4
    assert rates == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every_epochs": 1, "every_steps": 1}, "not both"),
        ({"rerank_until_epoch": 1}, "must be after end_epoch 2"),
    ],
)
def test_schedules_that_contradict_themselves(change, message):
    with pytest.raises(ValueError, match=message):
        SparsitySchedule(end_epoch=2, **change)


def test_schedules_that_come_to_nothing_are_told():
    """96 features in batches of 16 are six steps an epoch. A cycle of 0.2 epochs is one step, and a warm-up of 0.1 is
    that one; an event at epoch 0.95 is step 6, after the last of six."""
    rate = {"initial": 1.0, "rewind_epochs": [0.2, 0.4, 0.6, 0.8], "warmup_epochs": 0.1}
    none_left = Training(epochs=1.0, batch_size=16, learning_rate=rate)
    with pytest.raises(UserError, match="a cycle of it has 1 steps, 1 of them warm-up"):
        check_steps(none_left, 96)
    whole = Training(epochs=1.0, batch_size=16, learning_rate={"initial": 1.0})
    check_steps(whole, 96, {0: 0.3, 5: 0.8})
    check_steps(whole, 96, {0: 0.3, 5: 0.8, 6: 0.8})  # made anew, as often as there are steps
    with pytest.raises(UserError, match="falls on step 6, after the last of 6 steps"):
        check_steps(whole, 96, {0: 0.3, 6: 0.8})


def test_very_many_events_are_told_and_not_listed():
    with pytest.raises(UserError, match=r"every_epochs 1e-12 is less than one optimiser step"):
        pruning_events(SparsitySchedule(end_epoch=1e6, every_epochs=1e-12), 10, 0.9)
