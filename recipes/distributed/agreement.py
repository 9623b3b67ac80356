"""The ranks hold the same model: checked at the start, because two models that drift apart give no error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch

from kit.errors import RunFailure
from recipes.distributed.processes import Processes

DIGEST_CHARACTERS = 16


def assert_equal_parameters(named: Iterable[tuple[str, torch.Tensor]], processes: Processes) -> None:
    """Compares names and digests of parameters of any shapes across all ranks. *Collective*: every rank.

    Raises:
        RunFailure: On every rank, naming the first parameter that differs.
    """
    mine = [(name, _digest(tensor)) for name, tensor in named]
    told = [json.loads(words) for words in processes.gather_words(json.dumps(mine)) if words is not None]
    for rank, theirs in enumerate(told):
        if theirs != told[0]:
            raise RunFailure(
                f"{_first_difference(told[0], theirs)} differs between rank 0 and rank {rank}",
                expected="the same parameters on every rank, bit for bit",
                action="don't use this run: report it with its config.yaml and logs",
            )


def _digest(tensor: torch.Tensor) -> str:
    whole = tensor.detach().contiguous().cpu()
    return hashlib.sha256(whole.flatten().view(torch.uint8).numpy()).hexdigest()[:DIGEST_CHARACTERS]


def _first_difference(first: list[list[str]], second: list[list[str]]) -> str:
    for mine, theirs in zip(first, second, strict=False):
        if mine != theirs:
            return f"parameter {mine[0]}" if mine[0] == theirs[0] else f"the name {mine[0]} or {theirs[0]}"
    return f"the number of parameters ({len(first)} and {len(second)})"
