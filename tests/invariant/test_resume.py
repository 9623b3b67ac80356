"""A run that was cut goes on: bit by bit in the same layout, within rounding in any other, with the same samples.

How stages and other engines go on: tests/ranks and tests/engines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import engine_programs
import numpy as np
import pytest
from rank_processes import run_on_ranks

CUT, LAST = 5, 25
TIED = {"tied": True}
FOUR_KV_HEADS = {"kv_heads": 4}
BF16 = {"precision": "bf16"}
PLAIN = {"optimizer": {"distributed": False}}


class Run(NamedTuple):
    """What a run is: layout, model and recipe, where they are not as usual."""

    layout: dict[str, Any] = {}
    model: dict[str, Any] = {}
    recipe: dict[str, Any] = {}

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return prod(int(self.layout.get(axis, 1)) for axis in ("data", "tensor", "pipeline", "context"))

    def train(self, steps: tuple[int, int], **how: Any) -> list[engine_programs.Part]:
        """Its steps first..last, as every rank tells of them."""
        arguments = (self.layout, self.model, self.recipe, steps, how.get("load"), how.get("save"))
        return run_on_ranks(engine_programs.train_part, self.world_size, *arguments, timeout_seconds=300)


class Cut(NamedTuple):
    """A run that went on after its checkpoint as if nothing had been, and the checkpoint."""

    told: list[engine_programs.Part]
    folder: str


RUNS: dict[str, Run] = {
    "one process": Run(),
    "data 2": Run({"data": 2}),
    "data 2, plain optimizer": Run({"data": 2}, recipe=PLAIN),
    "data 4": Run({"data": 4}),
    "tensor 4": Run({"tensor": 4}, FOUR_KV_HEADS),
    "pipeline 4": Run({"pipeline": 4}, FOUR_KV_HEADS),
    "pipeline 2": Run({"pipeline": 2}, TIED),
    "pipeline 2, interleaved": Run({"pipeline": 2, "interleave": 2}, TIED),
    "tensor 2 x pipeline 2": Run({"tensor": 2, "pipeline": 2}),
    "tensor 2 x pipeline 2 x data 2": Run({"tensor": 2, "pipeline": 2, "data": 2}),
    "bf16, one process": Run({}, recipe=BF16),
    "bf16, data 2 x tensor 2": Run({"data": 2, "tensor": 2, "sequence": True}, recipe=BF16),
    "context 2, dropout": Run({"context": 2}, {"dropout": 0.1}),
    "tensor 2, GPT-2, dropout": Run({"tensor": 2, "sequence": True}, {"family": "gpt2", "dropout": 0.1}),
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Cut]:
    @functools.cache
    def made(name: str) -> Cut:
        folder = tmp_path_factory.mktemp("checkpoint")
        told = RUNS[name].train((1, LAST), save=(CUT, str(folder)))
        assert any(folder.iterdir())
        return Cut(told, str(folder))

    return made


def test_every_step_has_samples_of_its_own(cut: Callable[[str], Cut]) -> None:
    seen = [name for step in engine_programs.samples_of(cut("one process").told) for name in step]
    assert len(set(seen)) == len(seen) == LAST * engine_programs.BATCH, "else equal samples would say little"


def losses(told: list[engine_programs.Part]) -> np.ndarray[Any, Any]:
    return np.array(told[0]["curve"])[:, 0]


@pytest.mark.parametrize(
    "name",
    [
        "one process",
        "data 2",
        "data 2, plain optimizer",
        "pipeline 2, interleaved",
        "tensor 2 x pipeline 2",
        "bf16, data 2 x tensor 2",
        "context 2, dropout",
        "tensor 2, GPT-2, dropout",
    ],
)
def test_the_same_layout_goes_on_bit_by_bit(cut: Callable[[str], Cut], name: str) -> None:
    before = cut(name)
    told = RUNS[name].train((CUT + 1, LAST), load=before.folder)
    for mine, other in zip(told, before.told, strict=True):
        assert mine["state"] == other["state"], "weights and optimizer, of every rank"
        assert mine["curve"] == other["curve"][CUT:]
        assert mine["samples"] == other["samples"][CUT:]
    for tensor, weight in before.told[0]["weights"].items():
        np.testing.assert_array_equal(told[0]["weights"][tensor], weight, err_msg=tensor)


@pytest.mark.parametrize(
    ("name", "other", "tolerance"),
    [
        ("tensor 2 x pipeline 2", "one process", 1e-5),
        ("data 4", "data 2", 1e-5),
        ("one process", "tensor 2 x pipeline 2 x data 2", 1e-5),
        ("tensor 4", "pipeline 4", 1e-5),
        ("pipeline 2", "pipeline 2, interleaved", 1e-5),
        ("pipeline 2, interleaved", "pipeline 2", 1e-5),
        ("data 2", "data 2, plain optimizer", 1e-5),
        ("data 2, plain optimizer", "data 2", 1e-5),
        ("bf16, data 2 x tensor 2", "bf16, one process", 1e-2),
    ],
)
def test_another_layout_goes_on_within_rounding_with_the_same_samples(
    cut: Callable[[str], Cut], name: str, other: str, tolerance: float
) -> None:
    before = cut(name)
    told = RUNS[other].train((CUT + 1, LAST), load=before.folder)
    assert np.abs(losses(told) - losses(before.told)[CUT:]).max() < tolerance
    assert engine_programs.samples_of(told) == engine_programs.samples_of(before.told)[CUT:]


def test_what_is_not_loaded_shows(cut: Callable[[str], Cut]) -> None:
    """A layout that loaded nothing, or no optimizer, would go on otherwise: the tests above can fail."""
    before = cut("one process")
    fresh = RUNS["one process"].train((CUT + 1, CUT + 2))
    assert np.abs(losses(fresh) - losses(before.told)[CUT : CUT + 2]).max() > 1e-2
