"""Multiple choice with every architecture and its tokenizer: scores of a question alone, and of an engine."""

import pytest
import questions_with_choices
import torch
from architectures.models import ALIKE, NAMES, make

from obert.experiment.recipes import load_task
from obert.experiment.schema import Model
from obert.models.encoders import load_pretrained
from obert.training.features import Features

CASES = {
    "new_head": ("commonsense_qa", {"format": "smc"}),
    "masked": ("winogrande", {"format": "smc"}),
    "masked_between_special_tokens": ("winogrande", {"format": "hf"}),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in NAMES],
)
def model(request, tmp_path_factory):
    return Model(source=str(make(request.param, tmp_path_factory.mktemp(request.param))))


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_a_question_alone(model, case, tmp_path):
    name, options = CASES[case]
    source = str(questions_with_choices.write(name, tmp_path))
    task = load_task(name, {"source": source, "max_length": 64, "eval_examples": 4, **options}, "the test")
    network, tokenizer = load_pretrained(model, task.head, ())
    data = Features.encode(task, task.load()["validation"], tokenizer)
    network.eval()
    batch = data.padded(range(4))
    with torch.no_grad():
        (together,) = task.head.forward(network, batch)
        alone = torch.cat([task.head.forward(network, data.padded([i]))[0] for i in range(4)])
        outputs = (network(**task.head.inputs(batch)).logits,)
    assert together.shape == (4, batch["input_ids"].shape[1])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(task.head.arranged(outputs, batch)[0], together, rtol=1e-4, atol=1e-4)
    if task.head.auto_model == "AutoModelForMaskedLM":
        ids = [[tokens[tokens != tokenizer.mask_token_id] for tokens in row] for row in batch["input_ids"]]
        real = [[tokens[tokens != tokenizer.pad_token_id] for tokens in row] for row in ids]
        assert all(first.equal(second) for first, second in real)  # equal outside the masks
