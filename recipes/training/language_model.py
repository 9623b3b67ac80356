"""Training a language model on token shards, whichever engine does it: the work of the stages pretrain and zero."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import atomic_write
from kit.flops import flops_per_token, hardware_flops_per_token, non_embedding_parameters, parameter_count
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from recipes.data import Batch, SampleStream, batches
from recipes.dataset import Dataset
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import Processes, choose_dtype
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.loop import Speed, Validation
from recipes.model.config import ModelConfig
from recipes.training.budget import with_steps
from recipes.training.config import TrainingConfig
from recipes.training.export import check_difference, export_difference, export_model
from recipes.training.facts import job_facts
from recipes.training.source import Source
from recipes.training.steps import Steps
from recipes.training.streams import Streams

BEFORE = "validation_loss_before"

COMPARED_SAMPLES = 2
"""Samples whose logits are compared after the export: every position is compared, so two are plenty."""


def _check(config: TrainingConfig, dataset: Dataset, model: ModelConfig, processes: Processes) -> None:
    if model.vocab_size < dataset.card.tokenizer.vocab_size:
        raise UserError(
            f"model.vocab is {model.vocab_size}, and the shards' tokenizer has {dataset.card.tokenizer.vocab_size}",
            expected="a vocabulary that holds every token id",
            action="leave model.vocab out: the tokenizer's is used then",
        )
    config.layout.check_world(processes.world_size)
    config.layout.check_model(
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        hidden=model.hidden,
        ffn=model.ffn,
        sequence_length=config.data.sequence_length,
    )


class LanguageModelTraining:
    """One run: its parts, and the order in which they work. *Collective*: every rank makes one and calls `go`.

    Args:
        config: The recipe.
        run: Its run directory.
        datasets: Checked shards by their parent's name, of one tokenizer.
        source: The model, vocabulary filled in, and the weights that it starts from.
        processes: The job.
        export: Whether to write Hugging Face directories, before and after.

    Raises:
        UserError: If shards, model, layout, budget and processes don't fit together.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run: RunDirectory,
        datasets: Mapping[str, Dataset],
        source: Source,
        processes: Processes,
        *,
        export: bool,
    ) -> None:
        dataset, model = next(iter(datasets.values())), source.model
        _check(config, dataset, model, processes)
        self.shape = model.shape(config.data.sequence_length)
        config = with_steps(config, self.shape)
        self.config, self.run, self.dataset, self.model, self.processes = config, run, dataset, model, processes
        self.source, self.export = source, export
        # An export says the longest sequence of all training.
        self.positions = max(source.positions, config.data.sequence_length)
        self.dtype = choose_dtype(config.precision, processes.device)
        self.per_token = flops_per_token(config.logging.flops_convention, self.shape)
        self.hardware_per_token = hardware_flops_per_token(
            config.logging.flops_convention, self.shape, config.recompute
        )
        self.streams = Streams(config, datasets)
        self.peak, self.peak_source = measure_peak(processes, self.dtype, config.logging.peak_seconds)
        self.engine: Engine = build_engine(config, model, processes, self.dtype)
        self.steps = Steps(
            config, run, processes, self.engine, Speed(self.per_token, self.peak, self.hardware_per_token)
        )

    def go(self) -> None:
        """Begins or goes on, trains, exports, sums up. *Collective*: every rank.

        Raises:
            RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
            Stopped: If it was asked to stop; the state is checkpointed.
        """
        with self.steps.sinks:
            self._say_what_is_seen()
            notes = self.steps.resume() or self._begin()
            self.steps.go(self._feed, self.validation_loss, notes)
            after = self.validation_loss()
            difference = self._export() if self.export else None
            if self.processes.first:
                summary = self._summary(notes, after, difference)
                atomic_write(self.run.artifacts / "training.json", json.dumps(summary, indent=1) + "\n")

    def _feed(self, steps: range) -> Iterator[Batch]:
        samples = self.config.data.global_batch_samples
        return batches(self.streams.train, steps, samples, self.engine.data_rank, self.engine.data_degree)

    def _say_what_is_seen(self) -> None:
        if not self.processes.first:
            return
        sources = self._seen()
        append_event(self.run, "data", sources=sources)
        for name, seen in sources.items():
            print(
                f"data {name}: {seen['weight']:.4g} of the samples, {seen['epochs']:.3g} epochs of "
                f"{seen['samples_per_epoch']} samples",
                flush=True,
            )

    def _seen(self) -> dict[str, dict[str, Any]]:
        return self.streams.seen(self.config.budget.steps * self.config.data.global_batch_samples)

    def validation_loss(self) -> Validation:
        """Mean nats per token over the first validation samples. *Collective*: every rank.

        Of a blend: every source's, and their mean by the weights of the blend, whatever the sources' own sizes: the
        loss on held-out text mixed like the training text.
        """
        losses = {name: self._loss_of(name, stream) for name, stream in self.streams.validation.items()}
        mean = sum(self.streams.shares[name] * loss for name, loss in losses.items())
        return Validation(mean, losses if self.streams.blended else {})

    def _loss_of(self, name: str, stream: SampleStream) -> float:
        layout = self.config.layout
        unit = layout.data * (layout.pipeline if layout.interleave > 1 else 1)
        samples = min(self.config.validation.samples, len(stream)) // unit * unit
        if not samples:
            raise UserError(
                f"{len(stream)} validation samples of `{name}` for {unit} data ranks",
                expected="at least one for each",
                action="prepare more text, or lower data.sequence_length or layout.data",
            )
        share = samples // layout.data
        start = self.engine.data_rank * share
        return self.engine.mean_loss([stream.batch(0, start, start + share)])

    def _begin(self) -> dict[str, float]:
        self.engine.load_weights(self.source.weights)
        if self.export:
            self._write_model("untrained")
        before = self.validation_loss()
        return {BEFORE: before.loss} | {f"{BEFORE}_{name}": loss for name, loss in before.by_source.items()}

    def _write_model(self, name: str) -> Path:
        directory = self.run.artifacts / name
        export_model(self.engine, self.model, self.positions, self.dataset, directory, self.processes)
        return directory

    def _export(self) -> float:
        directory = self._write_model("model")
        stream = next(iter(self.streams.validation.values()))
        samples = min(COMPARED_SAMPLES * self.config.layout.pipeline, len(stream))
        tokens = stream.batch(0, 0, samples).tokens
        difference = export_difference(self.engine, directory, tokens, self.processes)
        check_difference(difference, self.dtype, directory)
        return difference

    def _summary(self, notes: Mapping[str, float], after: Validation, difference: float | None) -> dict[str, Any]:
        config = self.config
        sources = self._seen()
        for name, loss in after.by_source.items():
            sources[name] |= {BEFORE: notes[f"{BEFORE}_{name}"], "validation_loss_after": loss}
        return {
            "flops_convention": config.logging.flops_convention,
            "flops_per_token": self.per_token,
            "hardware_flops_per_token": self.hardware_per_token,
            "peak_flops_per_second": self.peak,
            "peak_source": self.peak_source,
            "parameters": parameter_count(self.shape),
            "parameters_non_embedding": non_embedding_parameters(self.shape),
            **job_facts(config, self.run, self.processes),
            BEFORE: notes[BEFORE],
            "validation_loss_after": after.loss,
            "sources": sources,
            "export_max_logit_difference": difference,
            "global_batch_tokens": config.data.global_batch_tokens,
            "tokens": config.budget.steps * config.data.global_batch_tokens,
            "steps": config.budget.steps,
        }
