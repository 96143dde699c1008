"""A tiny random model of every architecture that the harness knows, with a tokenizer of its family's own kind.

    make("roberta", folder)

Weights are random; the vocabularies are learned from the tests' own texts. Each takes a fraction of a second.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.albert import AlbertConfig, AlbertTokenizer
from transformers.models.bert import BertConfig, BertTokenizer
from transformers.models.deberta_v2 import DebertaV2Config, DebertaV2Tokenizer
from transformers.models.distilbert import DistilBertConfig, DistilBertTokenizer
from transformers.models.electra import ElectraConfig
from transformers.models.mobilebert import MobileBertConfig, MobileBertTokenizer
from transformers.models.modernbert import ModernBertConfig
from transformers.models.mpnet import MPNetConfig, MPNetTokenizer
from transformers.models.roberta import RobertaConfig, RobertaTokenizer
from transformers.models.xlm_roberta import XLMRobertaConfig, XLMRobertaTokenizer

DATA = Path(__file__).parent.parent / "data"
POSITIONS, VOCABULARY_SIZE, LAYERS = 64, 300, 3
WIDTHS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": LAYERS}
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ALBERT_TOKENS = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
DEBERTA_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
MPNET_TOKENS = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
OFFSET = {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
DEBERTA = {
    "max_position_embeddings": POSITIONS, "type_vocab_size": 0, "relative_attention": True, "position_buckets": 16,
    "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False,
}  # fmt: skip


@cache
def _texts() -> tuple[str, ...]:
    rows = [json.loads(line) for path in sorted(DATA.glob("*/train.jsonl")) for line in path.open(encoding="utf-8")]
    return tuple(row[name] for row in rows for name in ("sentence", "text", "context", "question") if name in row)


def _learned(tokenizer: Tokenizer, trainer: trainers.Trainer, prepare: Callable[[str], str] = str) -> dict:
    tokenizer.train_from_iterator(map(prepare, _texts()), trainer)
    return json.loads(tokenizer.to_str())["model"]


@cache
def _word_pieces(special: tuple[str, ...]) -> dict[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=list(special), show_progress=False)
    return _learned(tokenizer, trainer, str.lower)["vocab"]


@cache
def _byte_pairs(special: tuple[str, ...]) -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE + 256,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model = _learned(tokenizer, trainer)
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


@cache
def _sentence_pieces(special: tuple[str, ...]) -> list[tuple[str, float]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = next(token for token in special if "unk" in token.lower())
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    return [(piece, score) for piece, score in _learned(tokenizer, trainer)["vocab"]]


def _of_word_pieces(kind: type, special: list[str]) -> Callable:
    return lambda: kind(vocab=_word_pieces(tuple(special)), model_max_length=POSITIONS)


def _of_sentence_pieces(kind: type, special: list[str]) -> Callable:
    return lambda: kind(vocab=_sentence_pieces(tuple(special)), model_max_length=POSITIONS)


def _roberta_tokenizer() -> RobertaTokenizer:
    return RobertaTokenizer(**_byte_pairs(tuple(ROBERTA_TOKENS)), model_max_length=POSITIONS)


def _modernbert_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs between BERT's special tokens, and no class of their own."""
    pairs = _byte_pairs(tuple(BERT_TOKENS))
    tokenizer = Tokenizer(models.BPE(**pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, pairs["vocab"][name]) for name in ("[CLS]", "[SEP]")],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT_TOKENS, strict=True))
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, model_input_names=inputs, **names
    )


def _bert(kind: type, tokenizer: type = BertTokenizer, **options) -> tuple:
    settings = WIDTHS | {"max_position_embeddings": POSITIONS} | options
    return kind, settings, _of_word_pieces(tokenizer, BERT_TOKENS)


_MADE = {
    "bert": _bert(BertConfig),
    "bert_large": _bert(BertConfig, num_hidden_layers=24, hidden_size=16, intermediate_size=32),
    "electra": _bert(ElectraConfig, embedding_size=16),
    "distilbert": (
        DistilBertConfig,
        {"dim": 32, "n_heads": 2, "hidden_dim": 48, "n_layers": LAYERS, "max_position_embeddings": POSITIONS},
        _of_word_pieces(DistilBertTokenizer, BERT_TOKENS),
    ),
    "mobilebert": _bert(
        MobileBertConfig,
        MobileBertTokenizer,
        embedding_size=8,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
    ),
    "roberta": (RobertaConfig, WIDTHS | OFFSET | {"type_vocab_size": 1}, _roberta_tokenizer),
    "xlm_roberta": (
        XLMRobertaConfig,
        WIDTHS | OFFSET | {"type_vocab_size": 1},
        _of_sentence_pieces(XLMRobertaTokenizer, ROBERTA_TOKENS),
    ),
    "albert": (
        AlbertConfig,
        WIDTHS
        | {"embedding_size": 8, "max_position_embeddings": POSITIONS}
        | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
        _of_sentence_pieces(AlbertTokenizer, ALBERT_TOKENS),
    ),
    "deberta_v2": (
        DebertaV2Config,
        WIDTHS | DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"},
        _of_sentence_pieces(DebertaV2Tokenizer, DEBERTA_TOKENS),
    ),
    "deberta_v3": (
        DebertaV2Config,
        WIDTHS | DEBERTA,
        _of_sentence_pieces(DebertaV2Tokenizer, DEBERTA_TOKENS),
    ),
    "mpnet": (MPNetConfig, WIDTHS | OFFSET, _of_word_pieces(MPNetTokenizer, MPNET_TOKENS)),
    "modernbert": (
        ModernBertConfig,
        WIDTHS
        | {"max_position_embeddings": POSITIONS, "local_attention": 8}
        | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
        _modernbert_tokenizer,
    ),
}
NAMES = tuple(_MADE)
ALIKE = ("bert_large", "electra", "xlm_roberta", "deberta_v2")  # built as others that stay among the fast tests


def config(name: str):
    """The configuration of the tiny model of an architecture."""
    kind, settings, tokenizer = _MADE[name]
    return kind(vocab_size=len(tokenizer()), **settings)


def make(name: str, folder: Path) -> Path:
    """Write the tiny model of an architecture and its tokenizer; the same weights every time. Returns the folder."""
    kind, settings, tokenizer = _MADE[name]
    made = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        AutoModel.from_config(kind(vocab_size=len(made), **settings)).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


if __name__ == "__main__":  # what each looks like
    import tempfile

    for each in NAMES:
        with tempfile.TemporaryDirectory() as temporary:
            make(each, Path(temporary))
            size = sum(path.stat().st_size for path in Path(temporary).iterdir())
            loaded = AutoTokenizer.from_pretrained(temporary)
            pair = loaded("The film is warm.", "Fenwick has 72,166 inhabitants.")
            print(each, size, type(loaded).__name__, list(pair), loaded.decode(pair["input_ids"]))
