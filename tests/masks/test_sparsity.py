"""Masks: exact counts, ties, monotony, and the measurement."""

import pytest
import torch

from obert.foundation.errors import UserError
from obert.masks.counts import assert_sparsity, count_zeros, equal_zeros
from obert.masks.holding import apply_masks
from obert.masks.patterns import Pattern
from obert.masks.selection import Cut, dense_masks, global_masks, row_masks, uniform_masks


def zeros(masks):
    return sum(int((~mask).sum()) for mask in masks.values())


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.703, 0.97])
def test_count_is_exact_over_all_tensors(sparsity):
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand(7, 11, generator=generator), "b": torch.rand(13, 5, generator=generator)}
    masks = global_masks(scores, dense_masks(scores), sparsity)
    assert zeros(masks) == round(142 * sparsity)
    kept = torch.cat([scores[n][masks[n]] for n in scores])
    pruned = torch.cat([scores[n][~masks[n]] for n in scores])
    assert len(pruned) == 0 or pruned.max() <= kept.min()


def test_ties_are_broken_in_model_order_and_still_counted_exactly():
    scores = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 2)}
    masks = global_masks(scores, dense_masks(scores), 0.4)
    assert masks["a"].flatten().tolist() == [False] * 4 + [True] * 2
    assert masks["b"].all()


def pruned_by_row(masks):
    return (~masks["a"]).sum(dim=1).tolist()


def test_rows_are_pruned_alike_and_the_rest_where_it_costs_least():
    """16 of 30 weights: five of each row, and one more of the row whose sixth lowest score is least."""
    scores = {"a": torch.arange(30.0).view(3, 10)}
    scores["a"][2] = torch.arange(10.0) / 10
    masks = row_masks(scores, dense_masks(scores), 16 / 30)
    assert masks["a"].tolist() == [[False] * 5 + [True] * 5, [False] * 5 + [True] * 5, [False] * 6 + [True] * 4]
    measured = count_zeros({"a": (scores["a"] + 1) * masks["a"]}, 16 / 30)
    assert assert_sparsity(measured, "here", distribution="row") is measured


@pytest.mark.parametrize("pattern", ["unstructured", "1x2", "2:4"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5])
def test_rows_have_the_tensors_exact_count_and_differ_by_one_group(pattern, sparsity):
    groups, scores = Pattern.parse(pattern), {"a": torch.rand(7, 12, generator=torch.Generator().manual_seed(0))}
    found = row_masks(scores, dense_masks(scores), sparsity, groups)
    assert zeros(found) == round(84 * sparsity / groups.zeros) * groups.zeros
    assert max(pruned_by_row(found)) - min(pruned_by_row(found)) <= groups.zeros


def test_a_row_that_has_lost_more_keeps_what_it_has_and_the_others_lose_the_less():
    scores = {"a": torch.rand(4, 10, generator=torch.Generator().manual_seed(0))}
    masks = dense_masks(scores)
    masks["a"][1, :9] = False
    found = row_masks(scores, masks, 0.5)
    assert sorted(pruned_by_row(found)) == [3, 4, 4, 9]
    assert pruned_by_row(found)[1] == 9 and not (found["a"] & ~masks["a"]).any()
    with pytest.raises(ValueError, match="target of 8 pruned groups is below the 9"):
        row_masks(scores, masks, 0.2)


def test_groups_over_several_rows_have_no_row_to_be_compared_in():
    scores = {"a": torch.rand(4, 4)}
    with pytest.raises(UserError, match="groups of tensor 'a' lie in several rows"):
        row_masks(scores, dense_masks(scores), 0.5, Pattern.parse("2x2"))


def test_uniform_masks_reach_the_target_in_each_tensor():
    scores = {"small": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "large": torch.arange(10.0, 20.0)}
    masks = uniform_masks(scores, dense_masks(scores), 0.5)
    assert masks["small"].tolist() == [[False, False], [True, True]]
    assert masks["large"].tolist() == [False] * 5 + [True] * 5
    measured = count_zeros({name: scores[name] * mask for name, mask in masks.items()}, 0.5)
    assert assert_sparsity(measured, "here", distribution="uniform") is measured
    everything_small = count_zeros(
        {"small": torch.zeros(2, 2), "large": torch.cat([torch.zeros(3), torch.ones(7)])}, 0.5
    )
    assert assert_sparsity(everything_small, "here") is everything_small  # 7 of 14 over both
    with pytest.raises(RuntimeError, match="large: 3 of 10"):
        assert_sparsity(everything_small, "here", distribution="uniform")


def test_pruned_weights_stay_pruned_whatever_their_score():
    scores = {"a": torch.tensor([5.0, 1.0, 2.0, 3.0])}
    masks = {"a": torch.tensor([False, True, True, True])}
    new = global_masks(scores, masks, 0.5)
    assert new["a"].tolist() == [False, False, True, True]


def test_lower_target_than_now_is_refused():
    masks = {"a": torch.tensor([False, False, True, True])}
    with pytest.raises(ValueError, match="below the 2 that"):
        global_masks({"a": torch.ones(4)}, masks, 0.25)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(ValueError, match="outside"):
        global_masks({"a": torch.ones(4)}, {"a": torch.ones(4, dtype=torch.bool)}, sparsity)


def test_score_that_is_not_finite_names_its_tensor():
    scores = {"fine": torch.ones(3), "broken": torch.tensor([1.0, float("nan")])}
    with pytest.raises(UserError, match="'broken'"):
        global_masks(scores, dense_masks(scores), 0.5)


def test_measure_counts_zeros_per_layer():
    weights = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([0.0, 0.0, 3.0, -0.0])}
    measured = count_zeros(weights, 0.5)
    assert (measured.layers["a"].zeros, measured.layers["b"].zeros) == (1, 3)
    assert measured.measured == pytest.approx(4 / 6)
    assert assert_sparsity(measured, "here") is measured


def test_lost_mask_is_an_error():
    weights = {"a": torch.ones(10)}
    apply_masks(weights, {"a": torch.arange(10) >= 5})
    weights["a"][0] = 0.3
    with pytest.raises(RuntimeError, match="4 of 10 weights are zero"):
        assert_sparsity(count_zeros(weights, 0.5), "here")


def bert(layers, width, between, rows):
    """Weights of the parts of a BERT with a pooler and two classes, from its shape."""
    encoder = layers * (4 * width**2 + 2 * width * between)
    return {"encoder": encoder, "embeddings": rows * width, "head": width**2 + 2 * width}


BERT_BASE = bert(12, 768, 3072, 30_522 + 512 + 2)
ROBERTA_LARGE = bert(24, 1024, 4096, 50_265 + 514) | {"head": 1024**2 + 1024}  # fairseq's, one score a choice


@pytest.mark.parametrize(("whole", "encoder"), [(0.5, 0.588), (0.7, 0.823), (0.8, 0.941)])
def test_equal_zeros_of_roberta_large_are_those_of_the_specification(whole, encoder):
    found = equal_zeros(ROBERTA_LARGE, whole)
    assert found == pytest.approx(encoder, abs=5e-4)
    assert found * ROBERTA_LARGE["encoder"] == pytest.approx(whole * sum(ROBERTA_LARGE.values()))


def test_equal_zeros_end_where_the_encoder_is_empty():
    shares = [sizes["encoder"] / sum(sizes.values()) for sizes in (ROBERTA_LARGE, BERT_BASE)]
    assert shares == pytest.approx([0.8506, 0.7766], abs=5e-5)
    for sizes, share in zip((ROBERTA_LARGE, BERT_BASE), shares, strict=True):
        assert equal_zeros(sizes, share - 1e-6) < 1
        with pytest.raises(UserError, match=r"more than encoder can lose, [\d,]+ \(0\.[78]"):
            equal_zeros(sizes, share)
        assert equal_zeros(sizes, 0.9, ("encoder", "embeddings", "head")) == pytest.approx(0.9)


def test_too_few_zeros_in_one_cut_are_found_though_the_whole_has_enough():
    weights = {"a": torch.zeros(4), "b": torch.ones(4)}
    measured = count_zeros(weights, 0.5)
    assert assert_sparsity(measured, "here") is measured
    with pytest.raises(RuntimeError, match="b to b: 0 of 4"):
        assert_sparsity(measured, "here", cuts=(Cut(("a",), 0.5), Cut(("b",), 0.25)))
