"""The pretrain stage: shards -> a trained model as a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kit.config import digest
from kit.errors import UserError
from kit.files import atomic_write
from kit.flops import flops_per_token, non_embedding_parameters, parameter_count
from kit.metrics import JsonlSink, StepRecord
from kit.run.directory import RunDirectory
from kit.run.events import append_event, read_events
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.data import SampleStream, batches
from recipes.dataset import Dataset, open_dataset
from recipes.distributed.memory import peak_memory_gib
from recipes.distributed.peak import measure_peak
from recipes.distributed.processes import DTYPES, Processes, join
from recipes.engines.protocol import Engine
from recipes.engines.table import build_engine
from recipes.loop import Course, Speed, train
from recipes.model.config import ModelConfig
from recipes.model.init import first_tensor
from recipes.pretrain.config import PretrainConfig
from recipes.pretrain.export import check_difference, export_difference, export_model
from recipes.stop import STOP, Stopped

COMPARED_SAMPLES = 2
"""Samples whose logits are compared after the export: every position is compared, so two are plenty."""


def run(config: PretrainConfig, run: RunDirectory) -> None:
    """Trains from first weights, or from the newest intact checkpoint, to an exported model. *Collective*.

    Raises:
        UserError: If shards, model, layout and processes don't fit together.
        RunFailure: If the loss isn't finite, the disk is full, or the export isn't the trained model.
        Stopped: If it was asked to stop; the state is checkpointed.
    """
    dataset = open_dataset(run)
    model = config.model.with_vocab(dataset.card.tokenizer.vocab_size)
    _check_vocab(model, dataset)
    processes = join(run.target_path)
    config.layout.check_world(processes.world_size)
    config.layout.check_model(
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        hidden=model.hidden,
        ffn=model.ffn,
        sequence_length=config.data.sequence_length,
    )
    Training(config, run, dataset, model, processes).go()


def _check_vocab(model: ModelConfig, dataset: Dataset) -> None:
    if model.vocab_size < dataset.card.tokenizer.vocab_size:
        raise UserError(
            f"model.vocab is {model.vocab_size}, and the shards' tokenizer has {dataset.card.tokenizer.vocab_size}",
            expected="a vocabulary that holds every token id",
            action="leave model.vocab out: the tokenizer's is used then",
        )


@dataclass
class Progress:
    """What a restart must know again, beside the engine's state."""

    step: int
    validation_loss_before: float


class Training:
    """One run of the stage: its parts, and the order in which they work."""

    def __init__(
        self, config: PretrainConfig, run: RunDirectory, dataset: Dataset, model: ModelConfig, processes: Processes
    ) -> None:
        self.config, self.run, self.dataset, self.model, self.processes = config, run, dataset, model, processes
        self.dtype = DTYPES[config.precision]
        self.shape = model.shape(config.data.sequence_length)
        self.per_token = flops_per_token(config.logging.flops_convention, self.shape)
        length = config.data.sequence_length
        self.train_stream = SampleStream(dataset.tokens("train"), length, config.seed)
        self.validation_stream = SampleStream(dataset.tokens("validation"), length, config.seed, shuffle=False)
        self.peak, self.peak_source = measure_peak(processes, self.dtype, config.logging.peak_seconds)
        self.engine: Engine = build_engine(config, model, processes, self.dtype)
        self.store = CheckpointStore(run.checkpoints, processes, config.checkpoint.keep)

    def go(self) -> None:
        """Begins or goes on, trains, exports, sums up. *Collective*: every rank."""
        progress = self._resume() or self._begin()
        last = self._train(progress)
        if last < self.config.budget.steps:
            raise Stopped
        after = self.validation_loss()
        difference = self._export() if self.config.export else None
        if self.processes.first:
            summary = self._summary(progress, after, difference)
            atomic_write(self.run.artifacts / "training.json", json.dumps(summary, indent=1) + "\n")

    def validation_loss(self) -> float:
        """Mean nats per token over the first validation samples. *Collective*: every rank."""
        layout = self.config.layout
        unit = layout.data * (layout.pipeline if layout.interleave > 1 else 1)
        samples = min(self.config.validation.samples, len(self.validation_stream)) // unit * unit
        if not samples:
            raise UserError(
                f"{len(self.validation_stream)} validation samples for {unit} data ranks",
                expected="at least one for each",
                action="prepare more text, or lower data.sequence_length or layout.data",
            )
        share = samples // layout.data
        start = self.engine.data_rank * share
        return self.engine.mean_loss([self.validation_stream.batch(0, start, start + share)])

    def _begin(self) -> Progress:
        self.engine.load_weights(partial(first_tensor, self.model, self.config.seed))
        if self.config.export:
            self._write_model("untrained")
        return Progress(0, self.validation_loss())

    def _resume(self) -> Progress | None:
        folder, manifest = self.store.newest_intact()
        for complaint in self.store.complaints:
            print(f"warning: {complaint}", flush=True)
            append_event(self.run, "checkpoint_damaged", words=complaint)
        if folder is None or manifest is None:
            return None
        self.engine.load_state(folder)
        if self.processes.first:
            append_event(self.run, "resumed", step=manifest.step)
        print(f"goes on after step {manifest.step}", flush=True)
        return Progress(manifest.step, manifest.notes["validation_loss_before"])

    def _train(self, progress: Progress) -> int:
        """Trains and writes metrics; returns the last step done."""
        config, last = self.config, progress.step
        course = Course(
            first_step=progress.step + 1,
            steps=config.budget.steps,
            global_batch_samples=config.data.global_batch_samples,
            global_batch_tokens=config.data.global_batch_tokens,
            highest_rate=config.optimizer.learning_rate,
            schedule=config.schedule,
            validate_every=config.validation.every_steps,
            checkpoint_every=config.checkpoint.every_steps,
        )
        steps = range(course.first_step, course.steps + 1)
        feed = batches(
            self.train_stream, steps, course.global_batch_samples, self.engine.data_rank, self.engine.data_degree
        )
        records = train(
            self.engine,
            feed,
            course,
            Speed(self.per_token, self.peak),
            validate=self.validation_loss,
            checkpoint=partial(self._checkpoint, progress),
            stop_agreed=lambda: self.processes.agree_any(STOP.requested),
            peak_memory_gib=lambda: self.processes.largest(peak_memory_gib(self.processes.device)),
        )
        write = self._writer()
        for record in records:
            write(record)
            last = record.step
        return last

    def _writer(self) -> Callable[[StepRecord], None]:
        sink = JsonlSink(self.run.metrics_path) if self.processes.first else None

        def write(record: StepRecord) -> None:
            print(f"step {record.step} loss {record.loss:.6f} norm {record.grad_norm:.4f}", flush=True)
            if sink is not None:
                sink.write(record)

        return write

    def _checkpoint(self, progress: Progress, step: int) -> None:
        config = self.config
        manifest = CheckpointManifest(
            step=step,
            samples_seen=step * config.data.global_batch_samples,
            engine=config.engine,
            layout=config.layout.model_dump(),
            config_digest=digest(config),
            notes={"validation_loss_before": progress.validation_loss_before},
        )
        self.store.save(manifest, self.engine.save_state)
        if self.processes.first:
            append_event(self.run, "checkpointed", step=step)

    def _write_model(self, name: str) -> Path:
        directory = self.run.artifacts / name
        length = self.config.data.sequence_length
        export_model(self.engine, self.model, length, self.dataset, directory, self.processes)
        return directory

    def _export(self) -> float:
        directory = self._write_model("model")
        samples = min(COMPARED_SAMPLES * self.config.layout.pipeline, len(self.validation_stream))
        tokens = self.validation_stream.batch(0, 0, samples).tokens
        difference = export_difference(self.engine, directory, tokens, self.processes)
        check_difference(difference, self.dtype, directory)
        return difference

    def _summary(self, progress: Progress, after: float, difference: float | None) -> dict[str, Any]:
        config = self.config
        return {
            "flops_convention": config.logging.flops_convention,
            "flops_per_token": self.per_token,
            "peak_flops_per_second": self.peak,
            "peak_source": self.peak_source,
            "parameters": parameter_count(self.shape),
            "parameters_non_embedding": non_embedding_parameters(self.shape),
            "layout": config.layout.model_dump(),
            "world_size": self.processes.world_size,
            "threads_per_process": self.processes.threads,
            "device": _device_words(self.processes.device),
            "precision": config.precision,
            "engine": config.engine,
            "validation_loss_before": progress.validation_loss_before,
            "validation_loss_after": after,
            "export_max_logit_difference": difference,
            "global_batch_tokens": config.data.global_batch_tokens,
            "tokens": config.budget.steps * config.data.global_batch_tokens,
            "steps": config.budget.steps,
            "resumed_from": [event["step"] for event in read_events(self.run) if event["event"] == "resumed"],
        }


def _device_words(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
