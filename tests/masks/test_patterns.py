"""Sparsity patterns: their names, and masks with exact counts at each of them."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from obert.foundation.errors import UserError
from obert.masks.counts import assert_sparsity, count_zeros
from obert.masks.patterns import UNSTRUCTURED, LayerPatterns, Pattern, parse_pattern
from obert.masks.selection import dense_masks, global_masks

NAMES = {
    "unstructured": (1, 1),
    "1x2": (2, 2),
    "1x4": (4, 4),
    "1x16": (16, 16),
    "2:4": (4, 2),
    "1:4": (4, 3),
    "3:4": (4, 1),
    "1:2": (2, 1),
    "4:8": (8, 4),
}
SMALL = ["unstructured", "1x2", "1x4", "2:4", "1:4", "3:4", "1:2"]
properties = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(("name", "fields"), NAMES.items())
def test_a_pattern_is_parsed_from_its_name_and_printed_as_it(name, fields):
    pattern = Pattern.parse(name)
    assert (pattern.size, pattern.zeros) == fields
    assert str(pattern) == name
    assert pattern.largest_sparsity == fields[1] / fields[0]


@pytest.mark.parametrize("name", ["", "Unstructured", "1x1", "1x0", "1x", "x4", "1x-4", "1x4 ", "4:4", "5:4", "0:4",
                                  "0:0", "2:", ":4", "2:4:8", "-2:4", "2.0:4", "2/4"])  # fmt: skip
def test_any_other_name_is_refused_with_those_allowed(name):
    with pytest.raises(
        ValueError, match="allowed are unstructured, RxC such as 1x4 or 32x32, row, column, and N:M such as 2:4"
    ):
        Pattern.parse(name)


@given(st.integers(1, 64), st.data())
@properties
def test_every_pattern_is_read_back_from_its_name(size, data):
    pattern = Pattern(size, data.draw(st.integers(1, size)))
    assert Pattern.parse(str(pattern)) == pattern


def test_unstructured_pattern_has_groups_of_one_weight():
    assert Pattern.parse("unstructured") == UNSTRUCTURED == Pattern(1, 1)


def test_rows_must_be_whole_groups_and_the_tensor_is_named():
    pattern = Pattern.parse("2:4")
    assert pattern.by_layer({"a": (3, 8), "b": (5, 12)}) == {"a": pattern, "b": pattern}
    with pytest.raises(UserError, match=r"2:4.*'b' have 10 weights, no multiple of 4"):
        pattern.by_layer({"a": (3, 8), "b": (6, 10)})
    UNSTRUCTURED.by_layer({"a": (3, 7)})
    scores = {"b": torch.ones(6, 10)}  # 60 weights are whole groups, their rows are not
    with pytest.raises(UserError, match="'b'"):
        global_masks(scores, dense_masks(scores), 0.4, pattern)


@pytest.mark.parametrize(("name", "sparsity"), [("2:4", 0.51), ("1:4", 0.76), ("3:4", 0.3), ("1:2", 0.9)])
def test_more_than_a_pattern_allows_is_refused(name, sparsity):
    scores = {"a": torch.rand(4, 8)}
    with pytest.raises(UserError, match=rf"more than pattern {name} allows"):
        global_masks(scores, dense_masks(scores), sparsity, Pattern.parse(name))


@pytest.mark.parametrize("name", ["2:4", "1:4", "3:4", "1:2"])
def test_the_most_a_pattern_allows_prunes_every_group(name):
    pattern = Pattern.parse(name)
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand(5, 8, generator=generator), "b": torch.rand(3, 4, generator=generator)}
    masks = global_masks(scores, dense_masks(scores), pattern.largest_sparsity, pattern)
    for tensor, mask in masks.items():
        assert ((~mask).view(-1, pattern.size).sum(dim=1) == pattern.zeros).all()
        kept = scores[tensor].view(-1, pattern.size).argsort(dim=1)[:, pattern.zeros :]
        assert mask.view(-1, pattern.size).gather(1, kept).all()


@pytest.mark.parametrize(
    ("name", "weights", "sparsity", "groups"),
    [
        ("unstructured", 104, 0.7, 73),  # 72.8
        ("1x4", 104, 0.7, 18),  # 18.2 groups of 4
        ("1x4", 85_000_000, 0.9, 19_125_000),
        ("2:4", 104, 0.5, 26),  # all of them
        ("2:4", 104, 0.25, 13),
        ("1:4", 104, 0.75, 26),
        ("3:4", 104, 0.25, 26),
        ("2:4", 104, 0.0, 0),
    ],
)
def test_groups_at_a_sparsity_by_hand(name, weights, sparsity, groups):
    assert Pattern.parse(name).groups_at(weights, sparsity) == groups


def test_groups_are_ranked_by_their_mean_score_over_all_tensors():
    scores = {"a": torch.tensor([[1.0, 9.0, 4.0, 4.0]]), "b": torch.tensor([[3.0, 3.0, 0.0, 20.0]])}
    masks = global_masks(scores, dense_masks(scores), 0.5, Pattern.parse("1x2"))  # means 5, 4, 3 and 10
    assert masks["a"].tolist() == [[True, True, False, False]]
    assert masks["b"].tolist() == [[False, False, True, True]]
    masks = global_masks(scores, dense_masks(scores), 0.25, Pattern.parse("1:2"))  # lowest ones 1, 4, 3 and 0
    assert masks["a"].tolist() == [[False, True, True, True]]
    assert masks["b"].tolist() == [[True, True, False, True]]


def expected_masks(scores, masks, count, pattern):
    """Lists instead of tensors, one group at a time: pruned are the first `count` by (done, exact mean, place)."""
    groups = []
    for name, mask in masks.items():
        values, kept = scores[name].flatten().tolist(), mask.flatten().tolist()
        for start in range(0, len(kept), pattern.size):
            places = range(start, start + pattern.size)
            lowest = sorted(places, key=lambda i: (values[i], i))[: pattern.zeros]
            if all(kept[i] for i in places):
                groups.append((1, sum(Fraction(values[i]) for i in lowest), len(groups), name, lowest))
            else:
                groups.append((0, 0, len(groups), name, []))
    result = {name: mask.flatten().tolist() for name, mask in masks.items()}
    for _, _, _, name, lowest in sorted(groups)[:count]:
        for i in lowest:
            result[name][i] = False
    return {name: torch.tensor(values).view_as(masks[name]) for name, values in result.items()}


@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3),
    st.sampled_from([1, 3, 1000]),
    st.integers(0, 1000),
)
@properties
def test_masks_are_exact_monotone_and_those_of_a_plain_ranking(name, shapes, sparsities, levels, seed):
    """Scores are small integers, so that means are exact and ties are frequent."""
    pattern, generator = Pattern.parse(name), torch.Generator().manual_seed(seed)
    masks = dense_masks({f"t{i}": torch.zeros(rows, width * pattern.size) for i, (rows, width) in enumerate(shapes)})
    size = sum(mask.numel() for mask in masks.values())
    for sparsity in sorted(s * pattern.largest_sparsity for s in sparsities):
        scores = {
            tensor: torch.randint(0, levels, mask.shape, generator=generator).float() for tensor, mask in masks.items()
        }
        count = round(size * sparsity / pattern.zeros)
        new = global_masks(scores, masks, sparsity, pattern)
        assert sum(int((~mask).sum()) for mask in new.values()) == count * pattern.zeros
        for tensor, expected in expected_masks(scores, masks, count, pattern).items():
            assert torch.equal(new[tensor], expected)
            assert not (new[tensor] & ~masks[tensor]).any()
            pruned = (~new[tensor]).view(-1, pattern.size).sum(dim=1)
            assert ((pruned == 0) | (pruned == pattern.zeros)).all()
        weights = {tensor: mask.float() for tensor, mask in new.items()}
        assert_sparsity(count_zeros(weights, sparsity), "here", pattern)
        if count:
            first = next(tensor for tensor, mask in new.items() if not mask.all())
            weights[first].view(-1)[int((~new[first]).flatten().nonzero()[0])] = 1.0
            with pytest.raises(RuntimeError, match="here"):
                assert_sparsity(count_zeros(weights, sparsity), "here", pattern)
        masks = new


def test_scores_of_pruned_groups_are_not_looked_at():
    scores = {"a": torch.tensor([[float("nan"), float("inf"), 2.0, 1.0, 3.0, 4.0]])}
    masks = {"a": torch.tensor([[False, True, True, True, True, True]])}
    new = global_masks(scores, masks, 2 / 6, Pattern.parse("1:2"))
    assert new["a"].tolist() == [[False, True, True, False, True, True]]


def test_blocks_of_rows_are_taken_apart_and_put_together():
    values = torch.arange(24).view(4, 6)
    pattern = Pattern.parse("2x3")
    assert (pattern.size, pattern.zeros, pattern.rows, str(pattern)) == (6, 6, 2, "2x3")
    groups = pattern.groups(values)
    assert groups.tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]
    assert torch.equal(pattern.ungroup(groups, values.shape), values)
    assert Pattern.parse("4x1").groups(values)[1].tolist() == [1, 7, 13, 19]
    with pytest.raises(UserError, match=r"columns of tensor 'a' have 5 weights, no multiple of 2"):
        pattern.by_layer({"a": (5, 6)})


def test_two_dimensional_blocks_are_ranked_by_their_mean():
    scores = {"a": torch.tensor([[1.0, 9.0, 2.0, 2.0], [1.0, 9.0, 2.0, 2.0]])}  # means 5 and 2
    masks = global_masks(scores, dense_masks(scores), 0.5, Pattern.parse("2x2"))
    assert masks["a"].tolist() == [[True, True, False, False]] * 2


HYBRID = {"*attention*": "2x2", "*intermediate*": "row", "*": "column"}


def test_a_pattern_for_each_layer():
    pattern = parse_pattern(HYBRID)
    shapes = {"l.attention.q": (4, 4), "l.intermediate": (6, 4), "l.output": (4, 6)}
    found = pattern.by_layer(shapes)
    assert [str(p) for p in found.values()] == ["2x2", "1x4", "4x1"]
    assert parse_pattern("row").by_layer({"a": (3, 5)})["a"] == Pattern(5, 5)
    with pytest.raises(UserError, match="tensor 'head' matches none of"):
        LayerPatterns((("*attention*", "2x2"),)).by_layer({"head": (2, 2)})
    for wrong in ({}, {"*": "2:4"}, {"*": "rows"}):
        with pytest.raises(ValueError, match=r"no layer|cannot be mixed|allowed are"):
            parse_pattern(wrong)


def test_groups_of_different_sizes_reach_the_target_with_as_few_as_needed():
    # sizes 4, 6 and 2; group means by tensor, in the order of cost: a0 (1), b1 (2), c0 (3), a1 (4), b0 (5), c1 (6)
    scores = {
        "a.attention": torch.tensor([[1.0, 1.0, 4.0, 4.0]] * 2),
        "b.intermediate": torch.tensor([[5.0] * 6, [2.0] * 6]),
        "c": torch.tensor([[3.0, 6.0]] * 2),
    }
    pattern, masks = parse_pattern(HYBRID), dense_masks(scores)
    expected = [(0.0, 0), (0.1, 4), (0.4, 10), (0.5, 12), (0.55, 16), (23 / 24, 24)]
    for sparsity, zeros in expected:  # of 24 weights
        masks = global_masks(scores, masks, sparsity, pattern)
        assert sum(int((~mask).sum()) for mask in masks.values()) == zeros
        weights = {name: mask.float() for name, mask in masks.items()}
        assert assert_sparsity(count_zeros(weights, sparsity), "here", pattern).measured == zeros / 24
    with pytest.raises(ValueError, match="pruned already"):
        global_masks(scores, masks, 0.5, pattern)
