"""The aligned model as a Hugging Face directory, and the proof that it is the trained one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.distributed.processes import Processes
from recipes.sft.export import write_model
from recipes.training.export import fail_together


def export_model(parent: Path, model: Any, template: ChatTemplate, directory: Path, processes: Processes) -> None:
    """Writes the model beside the parent's tokenizer and template, on rank 0. *Collective*: every rank.

    Raises:
        RunFailure: On every rank, if rank 0 could not write.
    """
    failure: Exception | None = None
    if processes.first:
        try:
            _as_parent_says(model, parent)
            write_model(directory, model, template, parent, tokens_added=False)
        except Exception as error:
            failure = error
    fail_together(failure, directory, processes)


def _as_parent_says(model: Any, parent: Path) -> None:
    """Trainers of transformers change which ids a model calls its first, last and padding token."""
    from transformers import AutoConfig

    told = AutoConfig.from_pretrained(parent, local_files_only=True)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(told, name, None))


@torch.no_grad()
def logit_difference(model: Any, directory: Path, rows: Sequence[Sequence[int]], processes: Processes) -> float:
    """Largest absolute difference between a model's logits and those of its export, read anew.

    *Collective*: every rank, with the same rows of ids; rank 0 computes, the same number on every rank.
    """
    difference = 0.0
    if processes.first:
        exported, _ = load_model(directory, processes.device)
        model.eval()
        for row in rows:
            tokens = torch.tensor([list(row)], device=processes.device)
            pair = [one(input_ids=tokens, use_cache=False).logits.float() for one in (model, exported)]
            difference = max(difference, float((pair[0] - pair[1]).abs().max()))
    return processes.largest(difference)
