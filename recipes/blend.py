"""Several datasets as one row of samples, by weight: a pure function of (seed, place), with random access.

After N places, N a multiple of the block, source i has given weight x N samples, give or take one or two. So a run of
any length, and a run that is resumed or cut over other data ranks, sees the same mixture.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from recipes.data import Batch, Ids, SampleStream, join_batches

BLOCK = 256
"""Places after which the counts are exact again. Inside of one the sources come in a drawn order."""


def shares(blend: Mapping[str, float]) -> dict[str, float]:
    """The weights of a blend as parts of 1, in its order."""
    total = sum(blend.values())
    return {name: weight / total for name, weight in blend.items()}


def source_seed(seed: int, name: str) -> int:
    """The seed of a source's own order: sources of equal size must not be read in step with one another."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")


@dataclass(frozen=True)
class BlendStream:
    """Samples of several streams; see `recipes.data.BatchSource`.

    Attributes:
        sources: By name; their order is what `Batch.sources` counts.
        weights: By name, positive.
        seed: Of the order inside the blocks.
    """

    sources: Mapping[str, SampleStream]
    weights: Mapping[str, float]
    seed: int

    def batch(self, step: int, start: int, stop: int) -> Batch:
        """The samples at the places start..stop-1."""
        drawn = self.sources_at(start, stop)
        before = self.counts(start)
        parts, rows = [], []
        for number, stream in enumerate(self.sources.values()):
            mine = np.flatnonzero(drawn == number)
            if len(mine):
                # A stretch of the blend's places holds a stretch of each source's own places.
                parts.append(stream.batch(step, before[number], before[number] + len(mine)))
                rows.append(mine)
        joined = join_batches(parts)
        back = np.argsort(np.concatenate(rows))
        documents = None if joined.documents is None else joined.documents[back]
        return Batch(step, joined.tokens[back], joined.labels[back], documents=documents, sources=drawn)

    def sources_at(self, start: int, stop: int) -> Ids:
        """Which source stands at each of the places start..stop-1."""
        first = start // BLOCK
        blocks = [self._block(number) for number in range(first, -(-stop // BLOCK))]
        return np.concatenate(blocks)[start - first * BLOCK : stop - first * BLOCK]

    def counts(self, places: int) -> list[int]:
        """Samples of each source among the first `places` places."""
        block, rest = divmod(places, BLOCK)
        whole = self._whole_blocks(block)
        inside = np.bincount(self._block(block)[:rest], minlength=len(whole)).tolist() if rest else [0] * len(whole)
        return [before + more for before, more in zip(whole, inside, strict=True)]

    def epochs(self, places: int) -> dict[str, float]:
        """How often each source has been seen after `places` places, by name."""
        counts = zip(self.sources.items(), self.counts(places), strict=True)
        return {name: count / len(stream) for (name, stream), count in counts}

    def _whole_blocks(self, blocks: int) -> list[int]:
        return apportion(list(self.weights.values()), blocks * BLOCK)

    def _block(self, number: int) -> Ids:
        return _drawn_block(self.seed, tuple(self.weights.values()), number)


@functools.lru_cache(maxsize=64)
def _drawn_block(seed: int, weights: tuple[float, ...], number: int) -> Ids:
    before, after = (apportion(weights, blocks * BLOCK) for blocks in (number, number + 1))
    quotas = np.subtract(after, before)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number, BLOCK))))
    drawn = generator.permutation(np.repeat(np.arange(len(weights), dtype=np.int64), quotas))
    drawn.flags.writeable = False
    return drawn


def apportion(weights: Sequence[float], places: int) -> list[int]:
    """Divides places by weight: whole numbers that add up to `places`, none of which shrinks as places grow.

    The heaviest takes its rounded part of all, the next its rounded part of what is left, and so on. Rounding quotas
    of every block for itself would drift away from the weights; rounding running totals would let one shrink.
    """
    exact = [Fraction(weight) for weight in weights]
    left_weight, left = sum(exact), places
    counts = [0] * len(weights)
    for number in sorted(range(len(weights)), key=lambda n: (-exact[n], n)):
        counts[number] = (
            left if exact[number] == left_weight else int(left * exact[number] / left_weight + Fraction(1, 2))
        )
        left, left_weight = left - counts[number], left_weight - exact[number]
    return counts
