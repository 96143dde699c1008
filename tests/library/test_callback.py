"""The pruner in the Trainer of Transformers: checkpoints, resuming, what is refused."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from obert import GradualPruner
from obert.foundation.errors import UserError

SCHEDULE = {2: 0.3, 4: 0.6}
SETTINGS = {
    "obert": {"num_gradients": 16, "fisher_block_size": 16, "dampening": 1e-5},
    "soft_movement": {},
    "platon": {"window": 2},
}
CONFIG = BertConfig(
    vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=20,
)  # fmt: skip


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 60, (48, 6), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 2} for row in tokens]


@pytest.fixture
def trainer_of(data, tmp_path):
    """Makes a Trainer with a pruner in it, and saves every three of six steps."""

    def make(method, **options):
        torch.manual_seed(0)
        model = BertForSequenceClassification(CONFIG)
        arguments = TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=8, max_steps=6, save_steps=3, use_cpu=True,
            learning_rate=1e-3, report_to="none", disable_tqdm=True, logging_strategy="no", **options,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=data)
        pruner = GradualPruner(
            model,
            SCHEDULE,
            method,
            optimizer=trainer.create_optimizer(),
            batches=trainer.get_eval_dataloader(data),
            loss=lambda model, batch: torch.nn.functional.cross_entropy(
                model(batch["input_ids"]).logits, batch["labels"], reduction="none"
            ),
            **SETTINGS[method],
        )
        trainer.add_callback(pruner.callback())
        return trainer, pruner

    return make


@pytest.mark.parametrize("method", SETTINGS)
def test_training_goes_on_from_a_checkpoint_bit_by_bit(trainer_of, tmp_path, method):
    whole, pruner = trainer_of(method)
    whole.train()
    expected = pruner.finish()
    assert expected.total.measured == pytest.approx(0.6, abs=1e-3)
    again, pruner = trainer_of(method)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert [event["step"] for event in pruner.events] == [2, 4]
    found = pruner.finish()
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.masks.items())
    values = dict(again.model.named_parameters())
    assert all(torch.equal(values[name], value) for name, value in whole.model.named_parameters())


def test_a_checkpoint_without_the_pruner_is_refused(trainer_of, tmp_path):
    trainer_of("platon")[0].train()
    (tmp_path / "checkpoint-3" / "pruner.safetensors").unlink()
    with pytest.raises(UserError, match=r"goes on from step 3, the pruner is at step 0.*pruner\.load\(\)"):
        trainer_of("platon")[0].train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_a_term_of_the_loss_is_not_scaled(trainer_of):
    trainer, pruner = trainer_of("soft_movement")
    trainer.args.fp16 = True
    with pytest.raises(UserError, match="train in bf16"):
        pruner.callback().on_train_begin(trainer.args, trainer.state, trainer.control)
