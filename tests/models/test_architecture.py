"""What is found in a model: its stack, its prunable weights, its inputs, and what is left when layers are dropped."""

import json

import pytest
import torch
from architectures.models import NAMES, config, make
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
    ResNetConfig,
    RobertaConfig,
    T5Config,
    ViTConfig,
    XLMConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from obert.experiment.recipe import Scope
from obert.experiment.schema import Model
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.models.architecture import architecture_of
from obert.models.encoders import deployed_weights, load_pretrained, load_tokenizer, prunable_weights, save, understood

HEAD = registry.load("tasks", "movie_reviews").head
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DEBERTA = {"relative_attention": True, "position_buckets": 256, "share_att_key": True, "pos_att_type": "p2c|c2p"}
MOBILE_LAYER = 3 * 512 * 128 + (3 * 128 + 512) * 128 + 4 * 2 * 128 * 512  # bottlenecks; attention; four networks


def on_meta(settings, auto=AutoModel):
    with torch.device("meta"):
        return auto.from_config(settings)


def size(network, **scope):
    return sum(weight.numel() for weight in prunable_weights(network, Scope(**scope)).values())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (BertConfig(**BASE), 84_934_656),  # oBERT, section 4: "85 million"
        (BertConfig(**LARGE), 301_989_888),
        (RobertaConfig(**LARGE), 301_989_888),  # SMC-Bench's models
        (XLMRobertaConfig(**BASE), 84_934_656),
        (MPNetConfig(**BASE), 84_934_656),
        (DebertaV2Config(**BASE, **DEBERTA), 84_934_656),
        (DebertaV2Config(**BASE, **DEBERTA | {"share_att_key": False}), 84_934_656 + 12 * 2 * 768 * 768),
        (DistilBertConfig(), 42_467_328),
        (ElectraConfig(), 12 * (4 * 256 * 256 + 2 * 256 * 1024)),
        (ModernBertConfig(), 22 * (768 * 3 * 768 + 768 * 768 + 768 * 2 * 1152 + 1152 * 768)),
        (AlbertConfig(**BASE), 84_934_656 // 12),  # one layer's, used twelve times
        (MobileBertConfig(), 24 * MOBILE_LAYER),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_prunable_weights_are_the_linear_layers_of_the_encoder(settings, expected):
    network = on_meta(settings)
    assert size(network) == expected
    assert deployed_weights(network, Scope()) == expected * (12 if settings.model_type == "albert" else 1)


def test_embeddings_and_head_are_what_smc_bench_masks_besides():
    """RoBERTa-large with a multiple-choice head: 85.06 %, 14.65 % and 0.30 % of the weight matrices."""
    network = on_meta(RobertaConfig(**LARGE, vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1,
                                    num_labels=1), AutoModelForSequenceClassification)  # fmt: skip
    parts = [size(network, encoder=p == 0, embeddings=p == 1, head=p == 2) for p in range(3)]
    assert parts == [301_989_888, 51_997_696 + 1_024, 1_049_600]
    assert size(network, embeddings=True, head=True) == sum(parts)


def test_bert_base_has_the_published_parts():
    network = on_meta(BertConfig(**BASE, num_labels=3), AutoModelForSequenceClassification)
    assert size(network, encoder=False, embeddings=True) == 23_835_648
    assert size(network, encoder=False, head=True) == 589_824 + 768 * 3


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_is_in_one_part_and_a_tied_one_counts_once(name):
    network = on_meta(config(name), AutoModelForMaskedLM)
    parts = architecture_of(network).parts()
    found = [id(layer.weight) for layers in parts.values() for layer in layers.values()]
    matrices = {id(p) for n, p in network.named_parameters() if p.dim() == 2}
    assert len(found) == len(set(found))
    assert set(found) == matrices
    assert id(network.get_output_embeddings().weight) in {id(x.weight) for x in parts["embeddings"].values()}
    for part, layers in parts.items():
        for own, layer in layers.items():
            assert network.get_parameter(own) is layer.weight, part


def test_projections_of_factorised_embeddings_are_embeddings():
    for name, projection in {
        "albert": "encoder.embedding_hidden_mapping_in", "electra": "embeddings_project",
        "mobilebert": "embeddings.embedding_transformation", "mpnet": "encoder.relative_attention_bias",
        "deberta_v3": "encoder.rel_embeddings",
    }.items():  # fmt: skip
        assert f"{projection}.weight" in architecture_of(on_meta(config(name))).parts()["embeddings"]


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
REFUSED = {
    "a decoder": (LlamaConfig(**TINY, vocab_size=50), "causal attention"),
    "a decoder of BERT": (BertConfig(**TINY, is_decoder=True), "it has a decoder"),
    "encoder and decoder": (T5Config(d_model=32, num_layers=2, num_heads=2, d_ff=32, vocab_size=50), "has a decoder"),
    "Conv1D": (GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50), "no list of layers with linear layers"),
    "a CNN": (ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8), "no table of token embeddings"),
    "images": (ViTConfig(**TINY), "no table of token embeddings"),
    "weights of their own": (XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=32, vocab_size=50), "'layer.0.rel"),
    "two stacks": (XLMConfig(emb_dim=32, n_layers=2, n_heads=2, n_words=50), "lists of layers: attentions, ffns"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_is_not_understood_is_refused_in_one_message(kind):
    settings, reason = REFUSED[kind]
    network = on_meta(settings)
    with pytest.raises(UserError, match=reason) as raised:
        architecture_of(network).require_understood()
    message = str(raised.value)
    assert f"model_type {settings.model_type}" in message
    assert "a table of token embeddings" in message
    assert f"obert/models/architectures/{settings.model_type}.py" in message


def test_it_is_refused_where_it_is_loaded(root, tmp_path):
    AutoModelForSequenceClassification.from_config(REFUSED["Conv1D"][0]).save_pretrained(tmp_path)
    load_tokenizer(root / "tests/data/tiny_bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"GPT2ForSequenceClassification.*not understood"):
        load_pretrained(Model(source=str(tmp_path)), HEAD, ("0", "1"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_tomorrow"}))
    with pytest.raises(UserError, match=r"cannot be loaded.*of_tomorrow"):
        load_pretrained(Model(source=str(tmp_path)), HEAD, ("0", "1"))


WITH_TOKEN_TYPES = {"bert", "bert_large", "electra", "mobilebert", "albert"}


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_what_the_model_takes_and_the_tokenizer_makes(name, tmp_path):
    make(name, tmp_path / "model")
    network, tokenizer = load_pretrained(Model(source=str(tmp_path / "model")), HEAD, ("0", "1"))
    save(network, tokenizer, tmp_path / "saved")
    for each in (tokenizer, load_tokenizer(tmp_path / "saved")):
        encoded = each("the film is warm", "the script is cold")
        expected = {"input_ids", "attention_mask"} | ({"token_type_ids"} if name in WITH_TOKEN_TYPES else set())
        assert set(encoded) == expected
        if name in WITH_TOKEN_TYPES:
            assert set(encoded["token_type_ids"]) == {0, 1}
        batch = each.pad([encoded, each("warm", "cold")], return_tensors="pt")
        assert network(**batch).logits.shape == (2, 2)


def test_token_types_are_left_out_where_they_make_no_difference(tmp_path):
    folder = make("bert", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = on_meta(config("bert"))
    network.embeddings.token_type_embeddings = torch.nn.Embedding(1, 32)  # an index of 1 would be out of range
    assert understood(network, tokenizer).input_names(tokenizer) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [(0, 2), (0, 1)])
def test_what_is_kept_computes_what_it_did_and_loads_again(name, kept, tmp_path):
    """The outputs equal those of a model in which the dropped layer hands its input on."""
    make(name, tmp_path / "model")
    network, tokenizer = load_pretrained(Model(source=str(tmp_path / "model")), HEAD, ("0", "1"))
    network.eval()
    batch = tokenizer(["the film is warm", "cold"], padding=True, return_tensors="pt")
    dropped = [index for index in range(network.config.num_hidden_layers) if index not in kept]
    with torch.no_grad():
        expected = _without(network, dropped, batch)
        architecture_of(network).keep(kept)
        found = network(**batch).logits
        save(network, tokenizer, tmp_path / "saved")
        again, _ = load_pretrained(Model(source=str(tmp_path / "saved")), HEAD, ("0", "1"))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(again.eval()(**batch).logits, expected)
    assert again.config.num_hidden_layers == len(kept)
    assert architecture_of(again).layers == len(kept)


def _without(network, dropped, batch):
    """Logits with some layers made the identity; the calls are counted, as ALBERT's one layer is called for each."""
    calls = []

    def skip(module, arguments, outputs):
        calls.append(module)
        if len(calls) - 1 in dropped:
            return (arguments[0], *outputs[1:]) if isinstance(outputs, tuple) else arguments[0]
        return None

    handles = [layer.register_forward_hook(skip) for layer in architecture_of(network).stack]
    try:
        return network(**batch).logits
    finally:
        for handle in handles:
            handle.remove()


def test_layers_that_no_model_can_be_built_of_are_refused(tmp_path):
    network = AutoModel.from_config(config("modernbert"))
    with pytest.raises(UserError, match=r"\[1, 2\].*not all alike \('layers.0.attn_norm.weight'\)"):
        architecture_of(network).keep((1, 2))


@pytest.mark.parametrize("layers", [(), (0, 0), (3,), (-1,)])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(UserError, match="layers 0 to 2"):
        architecture_of(on_meta(config("bert"))).keep(layers)


def test_modernbert_keeps_the_attention_of_each_layer(tmp_path):
    settings = config("modernbert")
    assert settings.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    settings.num_hidden_layers, settings.layer_types = 4, [*settings.layer_types, "full_attention"]
    network = AutoModel.from_config(settings)
    architecture_of(network).keep((0, 2, 3))
    assert network.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert [layer.attention_type for layer in network.layers] == network.config.layer_types
    assert [layer.attn.layer_idx for layer in network.layers] == [0, 1, 2]


def test_mobilebert_with_14_of_24_layers():
    network = on_meta(MobileBertConfig())
    architecture_of(network).keep(range(14))
    assert network.config.num_hidden_layers == 14
    assert size(network) == 14 * MOBILE_LAYER


def test_albert_keeps_groups_that_its_configuration_can_name():
    settings = AlbertConfig(**TINY | {"num_hidden_layers": 6}, embedding_size=8, vocab_size=50, num_hidden_groups=3)
    network = AutoModel.from_config(settings).eval()
    first, last = network.encoder.albert_layer_groups[0], network.encoder.albert_layer_groups[2]
    assert architecture_of(network).repeats("encoder.albert_layer_groups.2.albert_layers.0.ffn.weight") == 2
    architecture_of(network).keep((0, 1, 4, 5))
    assert list(network.encoder.albert_layer_groups) == [first, last]
    assert (network.config.num_hidden_groups, network.config.num_hidden_layers) == (2, 4)
    with pytest.raises(UserError, match=r"groups \[0, 1, 1\]"):
        architecture_of(network).keep((0, 2, 3))
