"""Question answering on paragraphs of several features, and spans at their edges."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError
from obert.tasks._question_answering import MAX_ANSWER_TOKENS, best_span

DATA = Path(__file__).parent.parent / "data"
CONTEXT = " ".join(f"kelford has {number} inhabitants." for number in range(100, 140))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny_bert")


def task(**options):
    return load_task("squad", {"source": str(DATA / "city_qa"), "max_length": 40, "doc_stride": 8, **options}, "test")


def example(answer, start=None, context=CONTEXT, question="how many inhabitants?"):
    answers = {"text": [answer], "answer_start": [context.index(answer) if start is None else start]}
    return Dataset.from_list([{"id": "one", "title": "", "context": context, "question": question, "answers": answers}])


def decode(features, examples):
    width = max(features["length"])
    logits = torch.zeros(2, len(features), width)
    for row, (start, end) in enumerate(zip(features["start_positions"], features["end_positions"], strict=True)):
        logits[0, row, start] = logits[1, row, end] = 1
    return task().predict(tuple(logits), features, examples)[0]["prediction"]


@pytest.mark.parametrize("number", range(100, 140, 3))
def test_answers_are_found_in_every_part_of_a_long_paragraph(tokenizer, number):
    examples = example(str(number))
    features = task().encode(examples, tokenizer)
    assert len(features) > 5
    held = [start > 0 for start in features["start_positions"]]
    assert 0 < sum(held) < len(features)
    assert decode(features, examples) == str(number)


def test_neighbouring_features_share_the_stride(tokenizer):
    features = task().encode(example("100"), tokenizer)
    first, second = features[0], features[1]
    assert first["offset_starts"][-8:] == second["offset_starts"][:8]
    assert first["offset_starts"][-9] < second["offset_starts"][0]


def test_a_feature_that_cuts_the_answer_is_labelled_cls(tokenizer):
    whole = task().encode(example("100"), tokenizer)
    last = whole[0]["offset_starts"][-1]
    answer = CONTEXT[last - 10 : last + 30]
    features = task().encode(example(answer, last - 10), tokenizer)
    assert (features[0]["start_positions"], features[0]["end_positions"]) == (0, 0)


def test_white_space_around_an_answer_does_not_count(tokenizer):
    examples = example(" 100 ")
    assert decode(task().encode(examples, tokenizer), examples) == "100"


def test_a_long_question_leaves_room_for_the_paragraph(tokenizer):
    examples = example("120", question="how many inhabitants " * 40)
    features = task().encode(examples, tokenizer)
    assert features[0]["context_start"] == 2 + 40 // 2
    assert decode(features, examples) == "120"


def test_a_stride_as_long_as_the_room_for_context_is_refused():
    with pytest.raises(UserError, match="doc_stride 17 must be below 17 for max_length 40"):
        task(doc_stride=17)


def test_positions_beyond_the_end_count_zero():
    logits = (torch.zeros(2, 4), torch.zeros(2, 4))
    batch = {"start_positions": torch.tensor([9, 1]), "end_positions": torch.tensor([3, 9])}
    expected = np.log(4) / 2
    torch.testing.assert_close(
        task().head.losses(logits, batch), torch.tensor([expected, expected], dtype=torch.float32)
    )


def testbest_span_against_all_spans():
    rng = np.random.default_rng(0)
    for length in (1, 5, 60):
        start, end = rng.normal(size=(2, length))
        starts, ends = set(np.argsort(-start)[:20]), set(np.argsort(-end)[:20])
        allowed = [(start[i] + end[j], i, j) for i in starts for j in ends if i <= j < i + MAX_ANSWER_TOKENS]
        assert best_span(start, end) == max(allowed)


def test_no_allowed_span_gives_an_empty_answer(tokenizer):
    examples = example("100")
    features = task(max_length=96).encode(examples, tokenizer).select([0])
    slope = torch.arange(float(features["length"][0]))[None]  # the twenty best starts come after the best ends
    assert task(max_length=96).predict((slope, -slope), features, examples) == [{"id": "one", "prediction": ""}]
