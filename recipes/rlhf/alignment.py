"""One run of the rlhf stage: its parts, and the order in which they work, whichever algorithm trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.files import atomic_write, require_file
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.chat.generation import load_tokenizer
from recipes.chat.template import ChatTemplate
from recipes.dataset import parent_artifacts
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import DTYPES, Processes
from recipes.instructions.encode import LARGEST_DROPPED_SHARE
from recipes.instructions.read import Conversation, read_instructions, split_held_out
from recipes.loop import Speed
from recipes.rewards.rules import check_rules
from recipes.rlhf.config import RlhfConfig
from recipes.rlhf.export import export_model, logit_difference
from recipes.rlhf.held_out import check_held_out
from recipes.rlhf.job import Job, Trained, Training
from recipes.rlhf.outcome import COLUMNS, measure
from recipes.sft.model import Source, count_flops
from recipes.stages import load_object
from recipes.training.export import check_difference
from recipes.training.facts import job_facts

ALGORITHMS = {
    "ppo": "recipes.rlhf.ppo.training:PpoTraining",
    "dpo": "recipes.rlhf.dpo:DpoTraining",
    "grpo": "recipes.rlhf.grpo:GrpoTraining",
}

COMPARED_ROWS = 2
"""Conversations whose logits are compared after the export; every position is, so two are plenty."""


class Alignment:
    """One run. *Collective*: every rank makes one and calls `go`.

    Raises:
        UserError: If parents, data, model and processes don't fit together, or held-out prompts aren't held out.
    """

    def __init__(self, config: RlhfConfig, run: RunDirectory, processes: Processes) -> None:
        config.layout.check_world(processes.world_size)
        self.config, self.run, self.processes = config, run, processes
        # Data first: what is wrong with it shows before a large model is loaded.
        conversations = read_instructions(config.data.files, config.data.format)
        check_rules(config.reward.rules, conversations)
        train, held_out = split_held_out(conversations, config.data.held_out_fraction, config.seed)
        self.checked = check_held_out(run, held_out)
        self.parent = parent_artifacts(run, "model") / "model"
        reward = parent_artifacts(run, "reward") if config.reads_reward_parent else None
        _check_context(config, self.parent)
        self.template = ChatTemplate.of(load_tokenizer(self.parent))
        train, self.dropped = fitting(self.template, train, config)
        held_out, _ = fitting(self.template, held_out, config)
        self.speed_facts = self._measure_speed()
        speed = Speed(self.speed_facts["flops_per_token"], self.speed_facts["peak_flops_per_second"])
        self.job = Job(config, run, processes, self.parent, reward, train, held_out, speed)
        self.training: Training = load_object(ALGORITHMS[config.algorithm])(self.job)

    def go(self) -> None:
        """Trains, exports, measures, sums up. *Collective*: every rank.

        Raises:
            RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        with self.training.sinks as sinks:
            self._warn()
            trained = self.training.go()
            directory = self.run.artifacts / "model"
            difference = self._export(trained, directory)
            held_out = self.job.held_out[: self.config.measure.samples]
            told = measure(self.config, self.parent, directory, held_out, self.processes)
            if self.processes.first:
                content = {**self._facts(difference), **trained.facts, **told}
                atomic_write(self.run.artifacts / "rlhf.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
                sinks.table("answers", COLUMNS, [[row[name] for name in COLUMNS] for row in told["answers"]])
                _say(told)

    def _measure_speed(self) -> dict[str, Any]:
        """FLOPs are those of training the policy: sampling, reference and reward model aren't counted."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = self.config
        with torch.device("meta"):
            shell = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(self.parent, local_files_only=True))
        source = Source(self.parent, shell, self.template, ())
        convention, per_token = count_flops(source, config.logging.flops_convention, config.data.sequence_length)
        peak, words = measure_peak(self.processes, DTYPES[config.precision], config.logging.peak_seconds)
        return {
            "flops_convention": convention,
            "flops_per_token": per_token,
            "peak_flops_per_second": peak,
            "peak_source": words,
        }

    def _warn(self) -> None:
        if self.dropped and self.processes.first:
            words = f"{self.dropped} prompts leave no room for an answer in data.sequence_length and are left out"
            print(f"warning: {words}", flush=True)
            append_event(self.run, "conversations_dropped", words=words, count=self.dropped)

    def _export(self, trained: Trained, directory: Path) -> float:
        export_model(self.parent, trained.model, self.template, directory, self.processes)
        rows = [self.template.encode(one.messages)[0] for one in self.job.conversations[:COMPARED_ROWS]]
        rows = [row[: self.config.data.sequence_length] for row in rows]
        difference = logit_difference(trained.model, directory, rows, self.processes)
        check_difference(difference, DTYPES[self.config.precision], directory)
        return difference

    def _facts(self, difference: float) -> dict[str, Any]:
        config = self.config
        return {
            "algorithm": config.algorithm,
            "steps": config.budget.steps,
            "training_prompts": len(self.job.conversations),
            "dropped_too_long": self.dropped,
            "held_out_checked": self.checked,
            "export_max_logit_difference": difference,
            **self.speed_facts,
            **job_facts(config, self.run, self.processes),
        }


def fitting(
    template: ChatTemplate, conversations: list[Conversation], config: RlhfConfig
) -> tuple[list[Conversation], int]:
    """The conversations whose prompt leaves room for an answer, and how many were left out.

    Raises:
        UserError: If more than half of them are too long.
    """
    room = config.data.sequence_length - config.generation.new_tokens
    kept = [one for one in conversations if len(template.prompt_ids(one.prompt)) <= room]
    dropped = len(conversations) - len(kept)
    if dropped > LARGEST_DROPPED_SHARE * len(conversations):
        raise UserError(
            f"{dropped} of {len(conversations)} prompts have more than {room} tokens",
            expected=f"at most {LARGEST_DROPPED_SHARE:.0%} that leave no room for an answer; these are left out",
            action="raise data.sequence_length (up to the model's context), or lower generation.new_tokens",
        )
    return kept, dropped


def _check_context(config: RlhfConfig, model: Path) -> None:
    path = require_file(model / "config.json", "the config.json of a Hugging Face model directory")
    context = json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings")
    if context is not None and config.data.sequence_length > context:
        raise UserError(
            f"data.sequence_length is {config.data.sequence_length}, and {model} has a context of {context}",
            expected="at most the model's context",
            action=f"set data.sequence_length={context}, or choose a model with a longer context",
        )


def _say(told: dict[str, Any]) -> None:
    print(
        f"rule reward {told['rule_reward_before']:.3f} -> {told['rule_reward_after']:.3f}, "
        f"win rate {told['win_rate']:.3f} (p {told['p_value']:.2g}), KL {told['kl_nats_per_answer']:.2f} nats/answer",
        flush=True,
    )
