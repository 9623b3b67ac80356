"""The trained model as a Hugging Face directory, and the proof that it is the same model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch

from kit.errors import RunFailure, SlipwayError
from recipes.data import Ids
from recipes.dataset import Dataset
from recipes.distributed.processes import Processes
from recipes.engines.protocol import Engine
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.huggingface import write_directory

LARGEST_DIFFERENCE = {torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.5}
"""Logits that differ by more mean a wrong weight. fp16 keeps 11 bits and bf16 8: there only gross errors show."""


def export_model(
    engine: Engine, model: ModelConfig, sequence_length: int, dataset: Dataset, directory: Path, processes: Processes
) -> None:
    """Writes the engine's weights on rank 0, tensor by tensor. *Collective*: every rank.

    Raises:
        RunFailure: On every rank, if rank 0 could not write.
    """
    tensors = engine.stream_weights()
    failure: Exception | None = None
    if processes.first:
        try:
            _write(tensors, model, sequence_length, dataset, directory)
        except Exception as error:
            failure = error
    # The other ranks go through the whole stream, and so must rank 0 even when it can't write any more.
    deque(tensors, maxlen=0)
    fail_together(failure, directory, processes)


def fail_together(failure: Exception | None, directory: Path, processes: Processes) -> None:
    """Fails on every rank where rank 0 could not write a model. *Collective*: every rank.

    Raises:
        RunFailure: On every rank, if rank 0 has a failure; rank 0 raises its own, where that is in our three parts.
    """
    words = None if failure is None else f"{type(failure).__name__}: {getattr(failure, 'found', failure)}"
    words = processes.gather_words(words)[0]
    if isinstance(failure, SlipwayError):
        raise failure
    if words is not None:
        raise RunFailure(
            f"rank 0 could not write {directory}: {words}",
            expected="a complete model directory",
            action="see rank 0's log, mend the reason, then `slipway resume` the run",
        ) from failure


def _write(
    tensors: Iterator[tuple[str, torch.Tensor]],
    model: ModelConfig,
    sequence_length: int,
    dataset: Dataset,
    directory: Path,
) -> None:
    ids = SpecialIds(dataset.card.tokenizer.eod_id, dataset.card.tokenizer.pad_id)
    write_directory(directory, model, sequence_length, ids, tensors, dataset.tokenizer)


def export_difference(engine: Engine, directory: Path, tokens: Ids, processes: Processes) -> float:
    """Largest absolute difference between the engine's logits and the exported model's, in transformers, fp32.

    *Collective*: every rank, with the same tokens [samples, length]. The same number on every rank.
    """
    trained = engine.logits(tokens)
    difference = 0.0
    if trained is not None:
        # Imported here: it takes seconds, and only rank 0 needs it.
        from transformers import AutoModelForCausalLM

        exported = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = exported(torch.from_numpy(tokens)).logits
        difference = float((logits - trained).abs().max())
    return processes.largest(difference)


def check_difference(difference: float, dtype: torch.dtype, directory: Path) -> None:
    """Refuses an export that isn't the trained model.

    Raises:
        RunFailure: If the difference is larger than rounding explains.
    """
    limit = LARGEST_DIFFERENCE[dtype]
    if not difference <= limit:
        raise RunFailure(
            f"{directory}: logits differ from the training model's by up to {difference:.3g}",
            expected=f"at most {limit:g}",
            action="don't use this export: report it with the run's config.yaml",
        )
