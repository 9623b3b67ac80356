"""One run of supervised fine-tuning: its parts, and the order in which they work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kit.errors import UserError
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.data import Batch, batches
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import DTYPES, Processes
from recipes.engines.protocol import Engine, StepResult
from recipes.engines.table import build_engine
from recipes.instructions.encode import (
    ConversationBatch,
    ConversationStream,
    Encoded,
    encode_conversations,
    padded_batch,
    rank_batches,
)
from recipes.instructions.read import Conversation, read_instructions, split_held_out
from recipes.loop import Speed
from recipes.sft.config import SftConfig
from recipes.sft.export import largest_difference, merge_adapter, write_model
from recipes.sft.model import count_flops, load_source, with_lora
from recipes.sft.outcome import answer_all, answer_rows, contained_share, spread
from recipes.training.export import check_difference
from recipes.training.facts import job_facts
from recipes.training.steps import Steps

COMPARED_SAMPLES = 2
BEFORE = "answers_before.json"


class ConversationEngine:
    """An engine whose step records count real tokens, not padding."""

    def __init__(self, engine: Engine, processes: Processes) -> None:
        self._engine, self._processes = engine, processes
        self.save_state, self.load_state = engine.save_state, engine.load_state

    def train_step(self, batch: ConversationBatch, learning_rate: float) -> StepResult:
        """One optimizer step on this data rank's conversations. *Collective*: every rank."""
        result = self._engine.train_step(batch, learning_rate)
        return result._replace(tokens=int(self._processes.total(batch.real_tokens)))


@dataclass(frozen=True)
class Conversations:
    """What is trained on, what is held out, and how many didn't fit."""

    train: list[Encoded]
    held_out: list[Encoded]
    dropped: int


def encode_data(config: SftConfig, conversations: Sequence[Conversation], template: ChatTemplate) -> Conversations:
    """Splits and encodes conversations; which ones are held out doesn't depend on their length.

    Raises:
        UserError: If more than half are too long, one has no answer, or nothing is left on one side.
    """
    kept, dropped = encode_conversations(template, conversations, config.data.sequence_length)
    _, held = split_held_out(conversations, config.data.held_out_fraction, config.seed)
    prompts = {conversation.prompt_text for conversation in held}
    sides: tuple[list[Encoded], list[Encoded]] = ([], [])
    for row in kept:
        sides[row.conversation.prompt_text in prompts].append(row)
    if not all(sides):
        counts = f"{len(sides[0])} conversations to train on and {len(sides[1])} held out"
        raise UserError(
            f"{counts}; {len(dropped)} are too long",
            expected="at least one of each",
            action="give more conversations, or raise data.sequence_length",
        )
    return Conversations(*sides, len(dropped))


class Tuning:
    """One run. *Collective*: every rank makes one and calls `go`.

    Raises:
        UserError: If data, model, template, layout and processes don't fit together.
    """

    def __init__(self, config: SftConfig, run: RunDirectory, processes: Processes) -> None:
        config.layout.check_world(processes.world_size)
        self.config, self.run, self.processes = config, run, processes
        # Data first: what is wrong with it shows before a large model is loaded.
        conversations = read_instructions(config.data.files, config.data.format)
        self.source = load_source(config, run)
        self.data = encode_data(config, conversations, self.source.template)
        self.dtype = DTYPES[config.precision]
        self.convention, self.per_token = count_flops(
            self.source, config.logging.flops_convention, config.data.sequence_length
        )
        self.parameters = sum(parameter.numel() for parameter in self.source.model.parameters())
        lora = config.method == "lora"
        self.model = with_lora(self.source, config.lora, config.seed) if lora else self.source.model
        self.peak, self.peak_source = measure_peak(processes, self.dtype, config.logging.peak_seconds)
        self.engine: Engine = build_engine(config, self.model, processes, self.dtype)
        counted = ConversationEngine(self.engine, processes)
        self.steps = Steps(config, run, processes, counted, Speed(self.per_token, self.peak))
        self.stream = ConversationStream(self.data.train, config.seed, self.source.template.pad_id)

    def go(self) -> None:
        """Begins or goes on, trains, answers, exports, sums up. *Collective*: every rank.

        Raises:
            RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        with self.steps.sinks:
            notes = self.steps.resume() or self._begin()
            self.steps.go(self._feed, self.validation_loss, notes)
            after, answers = self.validation_loss(), self._answer()
            if self.processes.first:
                # Nothing below is collective: the other ranks are done.
                before = json.loads((self.run.artifacts / BEFORE).read_text(encoding="utf-8"))
                rows = answer_rows(self._asked, before, answers, self.config.answers.shown)
                self.steps.sinks.table("answers", list(rows[0]), [list(row.values()) for row in rows])
                summary = self._summary(notes["loss_before"], after) | self._export()
                summary |= {
                    "reference_contained_before": contained_share(before, self._asked),
                    "reference_contained_after": contained_share(answers, self._asked),
                    "answers": rows,
                }
                atomic_write(self.run.artifacts / "sft.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")

    def validation_loss(self) -> float:
        """Mean nats per counted token of held-out conversations. *Collective*: every rank."""
        rows = spread(self.data.held_out, self.config.validation.samples)
        samples, pad_id = self.config.data.micro_batch_samples, self.source.template.pad_id
        return self.engine.mean_loss(
            rank_batches(rows, samples, pad_id, self.engine.data_rank, self.engine.data_degree)
        )

    @property
    def _asked(self) -> list[Conversation]:
        return [row.conversation for row in spread(self.data.held_out, self.config.answers.samples)]

    def _begin(self) -> dict[str, float]:
        answers = self._answer()
        if self.processes.first:
            if self.data.dropped:
                words = f"{self.data.dropped} conversations are longer than data.sequence_length and are left out"
                print(f"warning: {words}", flush=True)
                append_event(self.run, "conversations_dropped", words=words, count=self.data.dropped)
            atomic_write(self.run.artifacts / BEFORE, json.dumps(answers, ensure_ascii=False) + "\n")
        return {"loss_before": self.validation_loss()}

    def _feed(self, steps: range) -> Iterator[Batch]:
        samples = self.config.data.global_batch_samples
        return batches(self.stream, steps, samples, self.engine.data_rank, self.engine.data_degree)

    def _answer(self) -> list[str]:
        return answer_all(
            self.model,
            self.source.template.tokenizer,
            self._asked,
            self.processes,
            new_tokens=self.config.answers.new_tokens,
            seed=self.config.seed,
        )

    def _export(self) -> dict[str, float]:
        """Writes model (and adapter), and compares logits on held-out conversations. Rank 0 alone."""
        template, directory = self.source.template, self.run.artifacts / "model"
        tokens = padded_batch(0, self.data.held_out[:COMPARED_SAMPLES], template.pad_id).tokens
        logits = self.engine.logits(tokens)
        assert logits is not None, "rank 0 has the logits"
        model, measured = self.model, {}
        if self.config.method == "lora":
            model.save_pretrained(self.run.artifacts / "adapter")
            model, difference = merge_adapter(model, torch.from_numpy(tokens), logits, self.dtype)
            measured["merge_max_logit_difference"] = difference
        write_model(directory, model, template, self.source.directory, tokens_added=bool(self.source.added))
        exported, _ = load_model(directory)
        difference = largest_difference(exported, torch.from_numpy(tokens), logits)
        check_difference(difference, self.dtype, directory)
        return measured | {"export_max_logit_difference": difference}

    def _summary(self, before: float, after: float) -> dict[str, Any]:
        config, data = self.config, self.data
        return {
            "method": config.method,
            "pairs": len(data.train),
            "held_out_pairs": len(data.held_out),
            "dropped_too_long": data.dropped,
            "added_tokens": list(self.source.added),
            "parameters": self.parameters,
            "trained_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "steps": config.budget.steps,
            "epochs": config.budget.steps * config.data.global_batch_samples / len(data.train),
            "loss_before": before,
            "loss_after": after,
            "flops_convention": self.convention,
            "flops_per_token": self.per_token,
            "peak_flops_per_second": self.peak,
            "peak_source": self.peak_source,
            **job_facts(config, self.run, self.processes),
        }
