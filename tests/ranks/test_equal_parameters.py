"""Ranks whose models differ by one bit are told so, all alike."""

from __future__ import annotations

import pytest
import torch
from rank_processes import run_on_ranks

from kit.errors import RunFailure
from recipes.distributed.agreement import assert_equal_parameters
from recipes.distributed.processes import Processes


def compared(processes: Processes) -> list[str | None]:
    last = processes.rank == processes.world_size - 1
    same = {"one": torch.arange(6.0).view(2, 3).T, "two": torch.tensor(0.5, dtype=torch.bfloat16)}
    changed = same | {"two": same["two"].nextafter(torch.ones_like(same["two"])) if last else same["two"]}
    renamed = {("three" if last and name == "two" else name): tensor for name, tensor in same.items()}
    fewer = {name: tensor for name, tensor in same.items() if not (last and name == "two")}
    told: list[str | None] = []
    for named in (same, changed, renamed, fewer):
        try:
            assert_equal_parameters(named.items(), processes)
            told.append(None)
        except RunFailure as failure:
            told.append(failure.found)
    return told


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_first_parameter_that_differs_is_named_on_every_rank(ranks: int) -> None:
    told = run_on_ranks(compared, ranks)
    between = f"differs between rank 0 and rank {ranks - 1}"
    names = ["parameter two", "the name two or three", "the number of parameters (2 and 1)"]
    assert told == [[None, *(f"{name} {between}" for name in names)]] * ranks
