"""How many ranks work along which axis, and which rank sits where: pure arithmetic.

The order of ranks is Megatron's `tp-cp-dp-pp` (Narayanan et al. 2021, section 3.2): tensor-parallel neighbours have
neighbouring ranks, so that they share a host; pipeline stages are furthest apart.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pydantic

from kit.config import Config
from kit.errors import UserError

AXES = ("tensor", "context", "data", "pipeline")
"""Axes from the fastest-varying to the slowest."""


class Coordinates(NamedTuple):
    """Where a rank sits on each axis, counted from 0."""

    data: int
    tensor: int
    pipeline: int
    context: int


class Layout(Config):
    """Degrees of parallelism; their product is the number of ranks.

    `interleave` is the number of model chunks a pipeline stage holds (1: plain 1F1B); `sequence` splits the
    activations between tensor-parallel regions along the sequence (Korthikanti et al. 2022).
    """

    data: int = pydantic.Field(default=1, ge=1)
    tensor: int = pydantic.Field(default=1, ge=1)
    pipeline: int = pydantic.Field(default=1, ge=1)
    context: int = pydantic.Field(default=1, ge=1)
    interleave: int = pydantic.Field(default=1, ge=1)
    sequence: bool = False

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.data * self.tensor * self.pipeline * self.context

    def degree(self, axis: str) -> int:
        """Returns the size of an axis."""
        return int(getattr(self, axis))

    def coordinates(self, rank: int) -> Coordinates:
        """Returns where a rank sits."""
        assert 0 <= rank < self.world_size, (rank, self.world_size)
        place: dict[str, int] = {}
        for axis in AXES:
            rank, place[axis] = divmod(rank, self.degree(axis))
        return Coordinates(**place)

    def rank_of(self, coordinates: Coordinates) -> int:
        """Returns the rank that sits at some coordinates; the inverse of `coordinates`."""
        rank = 0
        for axis in reversed(AXES):
            rank = rank * self.degree(axis) + getattr(coordinates, axis)
        return rank

    def groups(self, axis: str) -> list[list[int]]:
        """Returns the ranks that differ only along an axis, one list a group, every list ordered by that axis."""
        others = [a for a in AXES if a != axis]
        groups = []
        for place in itertools.product(*(range(self.degree(a)) for a in reversed(others))):
            fixed = dict(zip(reversed(others), place, strict=True))
            groups.append(
                [self.rank_of(Coordinates(**{axis: i, **fixed})) for i in range(self.degree(axis))],
            )
        return groups

    def describe(self) -> str:
        """Returns the layout in words, as in `tensor 2 x data 1`."""
        parts = [f"{axis} {self.degree(axis)}" for axis in AXES if self.degree(axis) > 1]
        parts += [f"interleave {self.interleave}"] if self.interleave > 1 else []
        parts += ["sequence parallel"] if self.sequence else []
        return " x ".join(parts) or "one process"

    def check_world(self, world_size: int) -> None:
        """Checks that the layout fills a number of ranks.

        Raises:
            UserError: Naming the nearest layouts that do.
        """
        if self.world_size == world_size:
            return
        model_ranks = self.tensor * self.pipeline * self.context
        if world_size % model_ranks == 0:
            advice = f"set layout.data={world_size // model_ranks}, or use {self.world_size} processes"
        else:
            legal = [d for d in range(1, world_size + 1) if world_size % d == 0]
            nearest = min(legal, key=lambda d: (abs(d - self.tensor), d))
            advice = (
                f"use {self.world_size} processes, or a layout such as tensor {nearest} x data {world_size // nearest}"
            )
        raise UserError(
            f"layout {self.describe()} needs {self.world_size} processes, and there are {world_size}",
            expected="data x tensor x pipeline x context = the number of processes",
            action=advice,
        )

    def check_model(
        self, *, layers: int, heads: int, kv_heads: int, hidden: int, ffn: int, sequence_length: int
    ) -> None:
        """Checks that a model can be cut this way.

        Raises:
            UserError: Naming the key and the nearest degrees that divide.
        """
        for key, size in (
            ("model.heads", heads),
            ("model.kv_heads", kv_heads),
            ("model.hidden", hidden),
            ("model.ffn", ffn),
        ):
            _check_divides("layout.tensor", self.tensor, key, size)
        _check_divides("layout.pipeline x layout.interleave", self.pipeline * self.interleave, "model.layers", layers)
        if self.interleave > 1 and self.pipeline == 1:
            raise UserError(
                f"layout.interleave is {self.interleave} with layout.pipeline 1",
                expected="interleaving only between pipeline stages",
                action="set layout.interleave=1, or layout.pipeline=2 or more",
            )
        if self.context > 1:
            _check_divides("2 x layout.context", 2 * self.context, "data.sequence_length", sequence_length)
        if self.sequence and self.tensor == 1:
            raise UserError(
                "layout.sequence is true with layout.tensor 1",
                expected="sequence parallelism only beside tensor parallelism",
                action="set layout.sequence=false, or layout.tensor=2 or more",
            )
        if self.sequence:
            degree = self.tensor * self.context
            _check_divides("layout.tensor x layout.context", degree, "data.sequence_length", sequence_length)

    def check_vocabulary(self, vocab: int) -> None:
        """Checks that the rows of embedding and output matrix can be cut.

        Padding them instead would put more columns under the softmax than the exported model has: a different loss.

        Raises:
            UserError: Naming the nearest sizes that can.
        """
        if vocab % self.tensor == 0:
            return
        below = vocab // self.tensor * self.tensor
        sizes = " or ".join(str(size) for size in (below, below + self.tensor) if size)
        raise UserError(
            f"layout.tensor is {self.tensor}, and the vocabulary is {vocab}",
            expected=f"a degree that divides {vocab}",
            action=f"train the tokenizer with {sizes} entries, set model.vocab={below + self.tensor}, "
            "or change layout.tensor",
        )

    def check_micro_batches(self, global_batch: int, micro_batch: int) -> None:
        """Checks that a global batch gives interleaved pipeline stages their rounds.

        Args:
            global_batch: Samples of one optimizer step of the whole job.
            micro_batch: Samples that one rank computes at once.

        Raises:
            UserError: Naming the nearest global batches that do.
        """
        portion = self.data * micro_batch
        count = global_batch // portion
        if self.interleave == 1 or count % self.pipeline == 0:
            return
        good = " or ".join(map(str, nearest_multiples(global_batch, portion * self.pipeline)))
        raise UserError(
            f"{count} micro-batches a step over {self.pipeline} interleaved pipeline stages",
            expected="with layout.interleave above 1, a multiple of layout.pipeline",
            action=f"set data.global_batch_samples to {good}",
        )


def nearest_multiples(number: int, unit: int) -> list[int]:
    """The multiples of `unit`, above 0, next below and above a number that is none."""
    below = number // unit * unit
    return [multiple for multiple in (below, below + unit) if multiple]


def _check_divides(name: str, degree: int, key: str, size: int) -> None:
    if size % degree == 0:
        return
    legal = [d for d in range(1, size + 1) if size % d == 0]
    below, above = [d for d in legal if d < degree], [d for d in legal if d > degree]
    nearest = " or ".join(str(d) for d in below[-1:] + above[:1])
    raise UserError(
        f"{name} is {degree}, and {key} is {size}",
        expected=f"a degree that divides {size}",
        action=f"set it to {nearest}, or change {key}",
    )
