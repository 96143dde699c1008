"""How many tokens a model takes: its configuration and its tokenizer are asked."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from obert.deployment.timing import check_lengths
from obert.experiment.recipes import load_task
from obert.experiment.schema import Model, Scenario
from obert.foundation.errors import UserError
from obert.heads.sequence_classification import SequenceClassification
from obert.models.encoders import load_pretrained, load_tokenizer
from obert.models.positions import positions

DATA = Path(__file__).parent.parent / "data"
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
ROOM = 34  # rows of the table of positions


def small(cls, **options):
    renamed = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16} if cls is DistilBertConfig else {}
    sizes = {"vocab_size": 50, **renamed} if renamed else SMALL
    return cls(**sizes, max_position_embeddings=ROOM, **options)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (small(BertConfig), ROOM),
        (small(ElectraConfig), ROOM),
        (small(DistilBertConfig), ROOM),
        (small(AlbertConfig, embedding_size=16), ROOM),
        (small(MobileBertConfig), ROOM),
        (small(RobertaConfig), ROOM - 2),
        (small(XLMRobertaConfig), ROOM - 2),
        (small(MPNetConfig), ROOM - 2),
        (small(DebertaV2Config), ROOM),
        (small(DebertaV2Config, position_biased_input=False, relative_attention=True), ROOM),
        (small(ModernBertConfig, pad_token_id=0), ROOM),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_model_runs_at_its_longest_and_where_it_embeds_positions_no_further(config, expected):
    assert positions(config) == expected
    network = AutoModel.from_config(config, attn_implementation="eager").eval()
    network(input_ids=torch.full((1, expected), 5))
    if config.model_type not in ("deberta-v2", "modernbert") or getattr(config, "position_biased_input", False):
        with pytest.raises((IndexError, RuntimeError)):
            network(input_ids=torch.full((1, expected + 1), 5))


def write_model(folder, config, **tokenizer):
    """A model of this configuration beside the tests' tokenizer, with these changes to the tokenizer's file."""
    AutoModel.from_config(config).save_pretrained(folder)
    shutil.copy(DATA / "tiny_bert/tokenizer.json", folder)
    found = json.loads((DATA / "tiny_bert/tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**found, "model_max_length": None, **tokenizer}))
    return folder


@pytest.mark.parametrize(("limit", "positions_of_it", "expected"), [(None, 128, 128), (512, 128, 128), (64, 128, 64)])
def test_the_shorter_of_tokenizer_and_model_decides(tmp_path, limit, positions_of_it, expected):
    config = BertConfig(**{**SMALL, "vocab_size": 500}, max_position_embeddings=positions_of_it)
    options = {} if limit is None else {"model_max_length": limit}
    folder = write_model(tmp_path, config, **options)
    task = load_task("movie_reviews", {"source": str(DATA / "movie_reviews"), "max_length": expected + 1}, "test")
    for tokenizer in (
        load_tokenizer(folder),
        load_pretrained(Model(source=str(folder)), SequenceClassification(), ("no", "yes"))[1],
    ):
        with pytest.raises(UserError, match=f"max_length {expected + 1}: the model takes at most {expected} tokens"):
            task.encode(task.load()["train"], tokenizer)
        task.model_copy(update={"max_length": expected}).encode(task.load()["train"], tokenizer)


def test_a_scenario_beyond_the_positions_behind_the_paddings_is_refused(tmp_path):
    config = RobertaConfig(**SMALL, max_position_embeddings=514)
    config.save_pretrained(tmp_path)
    check_lengths([Scenario(sequence_length=512), Scenario()], tmp_path)
    with pytest.raises(UserError, match=r"benchmark\.sequence_length 514: the model has positions for 512 tokens"):
        check_lengths([Scenario(), Scenario(sequence_length=514)], tmp_path)
