"""What tests of models share: a head of each exported kind, and padded batches of token lists."""

import torch
from torch.nn.utils.rnn import pad_sequence

from obert.heads.masked_language_model import MaskedLanguageModel
from obert.heads.question_answering import QuestionAnswering
from obert.heads.sequence_classification import SequenceClassification

EXPORTED = {"sequence_classification": SequenceClassification(), "question_answering": QuestionAnswering()}
HEADS = {**EXPORTED, "masked_language_model": MaskedLanguageModel()}
BATCH = 8


def padded_batches(features, pad_token_id):
    """Lists of tokens by input as int64 tensors [8, tokens], padded to the longest of each batch."""
    for start in range(0, len(features["input_ids"]), BATCH):
        yield {
            name: pad_sequence(
                [torch.tensor(row) for row in rows[start : start + BATCH]],
                batch_first=True,
                padding_value=pad_token_id if name == "input_ids" else 0,
            )
            for name, rows in features.items()
        }
