"""Direct preference optimisation (Rafailov et al. 2023) by TRL: preference pairs -> a policy that prefers likewise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from kit.errors import UserError
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.distributed.processes import DTYPES
from recipes.reward.preferences import Preference, read_preferences
from recipes.rlhf.job import Job, Trained
from recipes.rlhf.pairs import EncodedPair, check_apart, encode_pairs, preferred_share
from recipes.rlhf.trainer import HouseTrainer, TrainerTraining, one_device, order_of_samples, trainer_settings
from recipes.sft.export import merge_adapter

TRAINED_ON, HELD_OUT = "preferences.jsonl", "held_out_preferences.jsonl"
"""What the reward stage leaves for us."""

NAMES = {
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "log_probability_chosen",
    "logps/rejected": "log_probability_rejected",
}


def further(logs: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a step that say what is being learnt."""
    return {ours: logs[theirs] for theirs, ours in NAMES.items()}


class _Trainer(HouseTrainer, DPOTrainer):
    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        """The ids are the template's already: TRL would render texts, and search them for the template's marks."""
        return dataset


class DpoTraining:
    """See `recipes.rlhf.job.Training`. Pairs that don't fit into the context are left out and counted.

    Raises:
        UserError: If the pairs' file is damaged, more than half of them don't fit, or LoRA is given unknown layers.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model, self._tokenizer = load_model(job.model, job.processes.device)
        assert job.reward is not None, "the configuration asks for the parent"
        pairs, _ = read_preferences([job.reward / TRAINED_ON])
        check_apart(pairs, job.held_out)
        template, length = ChatTemplate.of(self._tokenizer), job.config.data.sequence_length
        self._pairs, self._dropped = encode_pairs(template, pairs, length)
        self._held_out = encode_pairs(template, held_out_pairs(job.reward), length)[0]
        self.training = TrainerTraining(job, self._build, further)
        self.sinks = self.training.sinks

    def go(self) -> Trained:
        """Trains, and merges the adapter where there is one.

        Raises:
            RunFailure: Also if the merged model isn't the one with the adapter.
        """
        self.training.train()
        model = self.training.trainer.model
        facts: dict[str, float | int] = {"pairs": len(self._pairs), "pairs_dropped_too_long": self._dropped}
        if self._job.config.dpo.lora is not None:
            pair = self._pairs[0]
            tokens = torch.tensor([pair.prompt_ids + pair.chosen_ids], device=self._job.processes.device)
            model, facts["merge_max_logit_difference"] = merge_adapter(
                model, tokens, adapter_logits(model, tokens), DTYPES[self._job.config.precision]
            )
        if self._held_out and self._job.processes.first:
            reference, _ = load_model(self._job.model, self._job.processes.device)
            facts["held_out_pairs"] = len(self._held_out)
            facts["held_out_pair_accuracy"] = preferred_share(model, reference, self._held_out)
        return Trained(model, facts)

    def _build(self) -> HouseTrainer:
        job, config = self._job, self._job.config
        settings = DPOConfig(**trainer_settings(job), beta=config.dpo.beta, max_length=None, loss_type="sigmoid")
        order = order_of_samples(job, len(self._pairs), config.data.global_batch_samples)
        # TRL loads the reference from the directory that the model says it came from: the parent's.
        try:
            trainer = _Trainer(
                model=self._model,
                args=one_device(settings),
                train_dataset=dataset_of(self._pairs).select(order),
                processing_class=self._tokenizer,
                peft_config=_adapter(job),
            )
        except ValueError as error:
            if config.dpo.lora is None or not config.dpo.lora.target_modules:
                raise
            raise UserError(
                f"dpo.lora.target_modules {config.dpo.lora.target_modules}: {str(error).splitlines()[0]}",
                expected="names of the model's linear layers, but not of the output",
                action="mend the names, or leave them out: all linear layers but the output are taken then",
            ) from error
        trainer.house = job
        return trainer


def held_out_pairs(reward: Path) -> list[Preference]:
    """The pairs that the reward stage held out; none where there is no such file."""
    path = reward / HELD_OUT
    return read_preferences([path])[0] if path.is_file() else []


def dataset_of(pairs: list[EncodedPair]) -> Dataset:
    """The pairs as TRL's collator wants them: prompt_ids, chosen_ids, rejected_ids."""
    return Dataset.from_dict(
        {
            "prompt_ids": [pair.prompt_ids for pair in pairs],
            "chosen_ids": [pair.chosen_ids for pair in pairs],
            "rejected_ids": [pair.rejected_ids for pair in pairs],
        }
    )


@torch.no_grad()
def adapter_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [samples, length, vocab] in fp32 on the CPU."""
    model.eval()
    logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits.float().cpu()
    return logits


def _adapter(job: Job) -> Any:
    lora = job.config.dpo.lora
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
