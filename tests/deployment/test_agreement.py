"""Engines that put out something else are found, and nothing else is held against them."""

import numpy as np
import pytest

from obert.deployment.agreement import Expected
from obert.engines import Engine, EngineError

SHAPE = (3, 6)


class Echo(Engine):
    """Puts out its tokens over 100 [batch, tokens, 2], 0 at padding, and their mean [batch, 1]; then `change`."""

    label, library = "Echo", "json"

    def __init__(self, change=lambda outputs, mask: outputs, tolerance=1e-5):
        self.change, self.seen = change, []
        self.tolerance = tolerance

    def run(self, inputs):
        self.seen.append(inputs)
        mask = inputs["attention_mask"]
        of_tokens = np.repeat((inputs["input_ids"] * mask / 100)[..., None], 2, axis=-1).astype(np.float32)
        return self.change([of_tokens, of_tokens.mean((1, 2))[:, None]], mask)

    def threads(self):
        return 1


def expected(quantized=False):
    return Expected.of(Echo(), 100, SHAPE, quantized)


def test_the_second_batch_has_padding_and_both_have_the_shape():
    whole, padded = expected().batches
    assert whole["attention_mask"].all() and padded["input_ids"].shape == SHAPE
    assert padded["attention_mask"].tolist() == [[1] * 6, [1] * 6, [1] * 3 + [0] * 3]
    assert not np.array_equal(whole["input_ids"], padded["input_ids"])


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs, mask: [output + 0.9e-3 for output in outputs],
        lambda outputs, mask: [np.where(mask[..., None] == 1, outputs[0], 7e3), outputs[1]],
    ],
    ids=["rounding", "padding"],
)
def test_what_means_nothing_is_passed_over(change):
    expected().require(Echo(change))


def first_only(outputs, mask):
    outputs[0][0, 0, 0] += 0.5
    return outputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda outputs, mask: [outputs[0] + 2e-3, outputs[1]], "up to 0.002; allowed is 0.001"),
        (first_only, "up to 0.5; allowed is 0.001"),
        (lambda outputs, mask: [outputs[0], outputs[1] * np.nan], "up to nan"),
        (lambda outputs, mask: outputs[:1], "other shapes than Echo"),
        (lambda outputs, mask: [outputs[0][:, :, :1], outputs[1]], "other shapes than Echo"),
    ],
)
def test_what_differs_is_refused(change, message):
    with pytest.raises(EngineError, match=message):
        expected().require(Echo(change))


def test_an_engine_in_half_precision_may_differ_as_it_says():
    expected().require(Echo(lambda outputs, mask: [output + 1e-2 for output in outputs], tolerance=2e-2))


def test_large_outputs_may_differ_by_as_many_digits():
    def large(outputs, mask):
        return [output * 1000 for output in outputs]

    found = Expected.of(Echo(large), 100, SHAPE, False)
    found.require(Echo(lambda outputs, mask: [output + 0.5 for output in large(outputs, mask)]))
    with pytest.raises(EngineError, match=r"up to 2; allowed is 0\.9"):
        found.require(Echo(lambda outputs, mask: [output + 2 for output in large(outputs, mask)]))


def test_in_8_bits_single_steps_count_for_little_and_a_shift_of_all_does_not():
    expected(quantized=True).require(Echo(first_only))
    with pytest.raises(EngineError, match=r"a mean of 0\.1; allowed is 0\.05"):
        expected(quantized=True).require(Echo(lambda outputs, mask: [output + 0.1 for output in outputs]))
