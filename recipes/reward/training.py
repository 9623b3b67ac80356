"""One run of the reward stage: its parts, and the order in which they work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kit.errors import RunFailure, UserError
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.chat.generation import load_model, load_tokenizer
from recipes.chat.template import ChatTemplate
from recipes.dataset import parent_artifacts
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import DTYPES, Processes
from recipes.instructions.read import read_instructions, split_held_out
from recipes.loop import Speed
from recipes.reward.config import RewardConfig
from recipes.reward.pairwise import (
    Judgement,
    Pair,
    PairBatch,
    PairwiseReward,
    build_reward_model,
    encode_pairs,
    pair_batches,
)
from recipes.reward.preferences import Preference, read_preferences, split_pairs, write_preferences
from recipes.reward.sampling import sample_pairs
from recipes.rewards.model import load_reward_model, scores
from recipes.rewards.rules import check_rules
from recipes.sft.export import write_model
from recipes.sft.outcome import spread
from recipes.training.facts import job_facts
from recipes.training.steps import Steps

TRAINED_ON, HELD_OUT = "preferences.jsonl", "held_out_preferences.jsonl"
SCALE_PAIRS = 512
"""At most so many training pairs say what the mean and the spread of scores are."""

LARGEST_SCORE_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Pairs:
    """Pairs to learn from, pairs held out, and how many were dropped because neither answer was better."""

    train: list[Preference]
    held_out: list[Preference]
    ties: int


class RewardTraining:
    """One run. *Collective*: every rank makes one and calls `go`.

    Raises:
        UserError: If data, rules, model, template, layout and processes don't fit together.
    """

    def __init__(self, config: RewardConfig, run: RunDirectory, processes: Processes) -> None:
        config.layout.check_world(processes.world_size)
        self.config, self.run, self.processes = config, run, processes
        # Data first: what is wrong with it shows before a large model is loaded.
        self.given = self._read()
        self.parent = parent_artifacts(run, "model") / "model"
        self.template = ChatTemplate.of(load_tokenizer(self.parent))
        model = build_reward_model(self.parent, self.template, config.seed)
        _check_context(config, model, self.parent)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        # Six for every weight that multiplies: there is no output layer, and embeddings are looked up.
        self.per_token = 6.0 * (self.parameters - model.get_input_embeddings().weight.numel())
        self.peak, self.peak_source = measure_peak(processes, DTYPES[config.precision], config.logging.peak_seconds)
        self.learner = PairwiseReward(config, model, self.template.pad_id, processes)
        self.steps = Steps(config, run, processes, self.learner, Speed(self.per_token, self.peak))

    def go(self) -> None:
        """Begins or goes on, trains, exports, sums up. *Collective*: every rank.

        Raises:
            UserError: If no pair is left on one side, or more than half of them are too long.
            RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        with self.steps.sinks:
            notes = self.steps.resume()
            pairs = self._make() if notes is None else self._kept(int(notes["ties"]))
            train, held_out, dropped = self._encoded(pairs)
            if notes is None:
                before = self.learner.judge([pair for _, pair in held_out])
                notes = {"loss_before": before.loss, "accuracy_before": before.accuracy, "ties": float(pairs.ties)}
            checked = spread([pair for _, pair in held_out], self.config.validation.samples)
            self.steps.go(lambda steps: self._feed(train, steps), lambda: self.learner.judge(checked).loss, notes)
            after = self.learner.judge([pair for _, pair in held_out])
            scale = self.learner.judge(train[:SCALE_PAIRS])
            if self.processes.first:
                # Nothing below is collective: the other ranks are done.
                told = self._summary(notes, after) | self._export(scale, held_out)
                told |= {"pairs": len(train), "held_out_pairs": len(held_out), "dropped_too_long": dropped}
                rows = told["examples"] = self._examples(held_out)
                self.steps.sinks.table("pairs", list(rows[0]), [list(row.values()) for row in rows])
                text = json.dumps(told, indent=1, ensure_ascii=False)
                atomic_write(self.run.artifacts / "reward.json", text + "\n")

    def _read(self) -> Pairs | None:
        """The pairs of the user's files; None where they are sampled."""
        config = self.config
        if config.data.preferences:
            pairs, ties = read_preferences(config.data.preferences)
            return Pairs(*split_pairs(pairs, config.data.held_out_fraction, config.seed), ties)
        self.conversations = read_instructions(config.data.files, config.data.format)
        check_rules(config.rules, self.conversations)
        return None

    def _make(self) -> Pairs:
        """The pairs of this run, also as files. *Collective*: every rank."""
        pairs = self.given or self._sample()
        if not pairs.train or not pairs.held_out:
            raise UserError(
                f"{len(pairs.train)} pairs to learn from and {len(pairs.held_out)} held out: {pairs.ties} times the "
                "rules found both answers equally good",
                expected="at least one of each",
                action="set sampling.temperatures further apart, or choose rules that tell answers apart",
            )
        if self.processes.first:
            write_preferences(self.run.artifacts / TRAINED_ON, pairs.train)
            write_preferences(self.run.artifacts / HELD_OUT, pairs.held_out)
        return pairs

    def _sample(self) -> Pairs:
        config = self.config
        train, held_out = split_held_out(self.conversations, config.data.held_out_fraction, config.seed)
        model, tokenizer = load_model(self.parent, self.processes.device)
        train = spread(train, config.sampling.prompts or len(train))
        made = [
            sample_pairs(model, tokenizer, prompts, config.rules, config.sampling, config.seed, self.processes)
            for prompts in (train, held_out)
        ]
        return Pairs(made[0][0], made[1][0], made[0][1] + made[1][1])

    def _kept(self, ties: int) -> Pairs:
        """The pairs that this run began with."""
        train, held_out = (read_preferences([self.run.artifacts / name])[0] for name in (TRAINED_ON, HELD_OUT))
        return Pairs(train, held_out, ties)

    def _encoded(self, pairs: Pairs) -> tuple[list[Pair], list[tuple[Preference, Pair]], int]:
        length = self.config.data.sequence_length
        train, dropped = encode_pairs(self.template, pairs.train, length)
        held_out, dropped_too = encode_pairs(self.template, pairs.held_out, length)
        dropped += dropped_too
        if dropped and self.processes.first:
            words = f"{dropped} pairs are longer than data.sequence_length and are left out"
            print(f"warning: {words}", flush=True)
            append_event(self.run, "pairs_dropped", words=words, count=dropped)
        return [pair for _, pair in train], held_out, dropped

    def _feed(self, train: Sequence[Pair], steps: range) -> Iterator[PairBatch]:
        rank, degree = self.learner.data_rank, self.learner.data_degree
        return pair_batches(train, steps, self.config.data.global_batch_samples, self.config.seed, rank, degree)

    def _export(self, scale: Judgement, held_out: Sequence[tuple[Preference, Pair]]) -> dict[str, float]:
        """Writes the model, and compares its scores with those of its export read anew. Rank 0 alone."""
        model, directory = self.learner.model.eval(), self.run.artifacts / "reward_model"
        model.config.reward_mean, model.config.reward_std = scale.mean, scale.std or 1.0
        write_model(directory, model, self.template, self.parent, tokens_added=False)
        exported, _ = load_reward_model(directory, self.processes.device)
        rows = [row for _, pair in held_out[:8] for row in (pair.chosen, pair.rejected)]
        with torch.no_grad():
            pad_id = self.template.pad_id
            difference = float((scores(model, rows, pad_id) - scores(exported, rows, pad_id)).abs().max())
        if not difference <= LARGEST_SCORE_DIFFERENCE:
            raise RunFailure(
                f"{directory}: scores differ from the trained model's by up to {difference:.3g}",
                expected=f"at most {LARGEST_SCORE_DIFFERENCE:g}",
                action="don't use this export: report it with the run's config.yaml",
            )
        return {
            "export_max_score_difference": difference,
            "reward_mean": model.config.reward_mean,
            "reward_std": model.config.reward_std,
        }

    @torch.no_grad()
    def _examples(self, held_out: Sequence[tuple[Preference, Pair]]) -> list[dict[str, Any]]:
        """Some held-out pairs with their scores, moved and scaled as `model_reward` does."""
        model, shown = self.learner.model, spread(held_out, self.config.shown)
        rows = [row for _, pair in shown for row in (pair.chosen, pair.rejected)]
        found = (scores(model, rows, self.template.pad_id) - model.config.reward_mean) / model.config.reward_std
        return [
            {
                "prompt": one.conversation.prompt_text,
                "chosen": one.chosen,
                "rejected": one.rejected,
                "score_chosen": chosen,
                "score_rejected": rejected,
            }
            for (one, _), (chosen, rejected) in zip(shown, found.view(-1, 2).tolist(), strict=True)
        ]

    def _summary(self, notes: dict[str, float], after: Judgement) -> dict[str, Any]:
        config = self.config
        return {
            "source": "files" if config.data.preferences else "sampled",
            "temperatures": None if config.data.preferences else list(config.sampling.temperatures),
            "rules": None if config.data.preferences else [rule.name for rule in config.rules],
            "ties_dropped": int(notes["ties"]),
            "loss_before": notes["loss_before"],
            "loss_after": after.loss,
            "accuracy_before": notes["accuracy_before"],
            "accuracy": after.accuracy,
            "margin": after.margin,
            "parameters": self.parameters,
            "steps": config.budget.steps,
            "flops_convention": "kaplan_6n",
            "flops_per_token": self.per_token,
            "peak_flops_per_second": self.peak,
            "peak_source": self.peak_source,
            **job_facts(config, self.run, self.processes),
        }


def _check_context(config: RewardConfig, model: Any, directory: Path) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and config.data.sequence_length > context:
        raise UserError(
            f"data.sequence_length is {config.data.sequence_length}, and {directory} has a context of {context}",
            expected="at most the model's context",
            action=f"set data.sequence_length={context}, or choose a model with a longer context",
        )
