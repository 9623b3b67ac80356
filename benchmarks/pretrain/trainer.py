"""The second peer: Hugging Face Trainer on LlamaForCausalLM. The same sizes, tokens, weights and threads.

    python -m benchmarks.pretrain.trainer RUN_DIR

SDPA attention, adamw_torch_fused, no evaluation, no saving, no progress bar; all else is Trainer's default.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from benchmarks.pretrain.cases import config_of
from benchmarks.pretrain.turns import Pace
from kit.config import load
from kit.run.directory import RunDirectory
from kit.target import Target
from recipes.data import SampleStream
from recipes.dataset import open_dataset
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds, hugging_face_config
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig


class Samples(torch.utils.data.Dataset):
    """The samples in the order of our batches. Labels are shifted already, which the model's loss has a name for."""

    def __init__(self, stream: SampleStream, count: int) -> None:
        self._stream, self._count = stream, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        sample = self._stream.batch(0, place, place + 1)
        labels = torch.from_numpy(sample.labels[0])
        return {"input_ids": torch.from_numpy(sample.tokens[0]), "labels": labels, "shift_labels": labels}


class PacedTrainer(Trainer):
    """Waits before every step; nothing else is different."""

    pace: Pace

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """A step when its turn has come."""
        self.pace.wait()
        loss = super().training_step(*arguments, **named)
        self.pace.tell(loss.item())
        return loss


def build_model(sizes: ModelConfig, config: PretrainConfig, ids: SpecialIds) -> LlamaForCausalLM:
    """The model with our first weights."""
    described = LlamaConfig(**hugging_face_config(sizes, config.data.sequence_length, ids))
    described.use_cache = False
    model = LlamaForCausalLM._from_config(described, attn_implementation="sdpa", dtype=torch.float32)
    first = partial(first_tensor, sizes, config.seed)
    missing = model.load_state_dict({name: first(name) for name in sizes.tensor_shapes()}, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    return model


def arguments_of(config: PretrainConfig, folder: str) -> TrainingArguments:
    """Trainer's settings: the recipe's numbers."""
    wanted = config.optimizer
    return TrainingArguments(
        output_dir=folder,
        use_cpu=True,
        max_steps=config.budget.steps,
        per_device_train_batch_size=config.data.global_batch_samples,
        optim="adamw_torch_fused",
        learning_rate=wanted.learning_rate,
        adam_beta1=wanted.beta1,
        adam_beta2=wanted.beta2,
        adam_epsilon=wanted.eps,
        weight_decay=wanted.weight_decay,
        max_grad_norm=wanted.clip_grad,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def main(run: RunDirectory) -> None:
    """Trains, a turn at a time."""
    pace, config = Pace(), config_of(run)
    torch.set_num_threads(int(load(Target, run.target_path).threads_per_process))
    dataset = open_dataset(run)
    assert config.model is not None
    tokenizer = dataset.card.tokenizer
    sizes = config.model.with_vocab(tokenizer.vocab_size, config.data.sequence_length)
    model = build_model(sizes, config, SpecialIds(tokenizer.eod_id, tokenizer.pad_id))
    stream = SampleStream(dataset.tokens("train"), config.data.sequence_length, config.seed)
    samples = Samples(stream, config.budget.steps * config.data.global_batch_samples)
    pace.start(config.data.global_batch_tokens)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PacedTrainer(model=model, args=arguments_of(config, folder), train_dataset=samples)
        trainer.pace = pace
        trainer.train()


if __name__ == "__main__":
    main(RunDirectory.open(Path(sys.argv[1])))
