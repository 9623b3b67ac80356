"""Which tokens every step sees: a pure function of (seed, step), the same for every layout and after every restart."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kit.errors import UserError

Ids = npt.NDArray[np.int64]


IGNORED = -100
"""The label of a place that doesn't count towards the loss: padding, and what the user says in a conversation."""


@dataclass(frozen=True)
class Batch:
    """The part of a step's samples that one data rank trains on.

    tokens and labels are [samples, sequence_length]; labels are the tokens one place to the right, or IGNORED. Losses
    are means over the counted labels of the whole job, so that ranks with longer answers weigh more.

    Attributes:
        step: The optimizer step, from 1.
        tokens, labels: As above.
        documents: [samples, sequence_length], which document of its sample every token belongs to, from 0; a token
            sees its own document alone. None: a sample is one row of text.
        sources: [samples], which source of a blend every sample is from, from 0. None: there is one.
    """

    step: int
    tokens: Ids
    labels: Ids
    documents: Ids | None = field(default=None, kw_only=True)
    sources: Ids | None = field(default=None, kw_only=True)

    def pieces(self, samples: int) -> Iterator[Batch]:
        """Micro-batches of `samples` samples, in order."""
        for start in range(0, len(self.tokens), samples):
            cut = slice(start, start + samples)
            documents = None if self.documents is None else self.documents[cut]
            sources = None if self.sources is None else self.sources[cut]
            yield Batch(self.step, self.tokens[cut], self.labels[cut], documents=documents, sources=sources)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """The samples of several batches as one; all have documents and sources, or none has."""
    first = batches[0]
    if len(batches) == 1:
        return first
    return Batch(
        first.step,
        np.concatenate([batch.tokens for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        documents=_joined([batch.documents for batch in batches]),
        sources=_joined([batch.sources for batch in batches]),
    )


def _joined(parts: Sequence[Ids | None]) -> Ids | None:
    there = [part for part in parts if part is not None]
    assert len(there) in (0, len(parts)), "some batches know their documents or sources, and others don't"
    return np.concatenate(there) if there else None


def documents_of(tokens: Ids, eod_id: int) -> Ids:
    """Which document of its sample every token [samples, length] belongs to; the token eod_id ends a document."""
    ended = np.zeros_like(tokens, dtype=np.int64)
    ended[:, 1:] = np.cumsum(tokens[:, :-1] == eod_id, axis=1)
    return ended


@dataclass(frozen=True)
class SampleStream:
    """A split's flat tokens cut into samples of sequence_length + 1 tokens, sequence_length apart.

    Attributes:
        tokens: The split, documents one after another.
        sequence_length: Tokens of a sample.
        seed: Of the order.
        shuffle: False: the samples in the order of the text.
        eod_id: The token that ends a document: batches then say which document every token belongs to.
    """

    tokens: npt.NDArray[np.generic]
    sequence_length: int
    seed: int
    shuffle: bool = True
    eod_id: int | None = None

    def __post_init__(self) -> None:
        if len(self) < 1:
            raise UserError(
                f"a split of {len(self.tokens)} tokens, which holds no sample of {self.sequence_length} + 1 tokens",
                expected=f"at least {self.sequence_length + 1} tokens in every split",
                action="prepare more text, or set data.sequence_length lower",
            )

    def __len__(self) -> int:
        """Samples in one epoch."""
        return (len(self.tokens) - 1) // self.sequence_length

    def epoch_order(self, epoch: int) -> Ids:
        """The order of the samples in an epoch, from a generator seeded by (seed, epoch)."""
        return self.sample_numbers(epoch * len(self), (epoch + 1) * len(self))

    def sample_numbers(self, start: int, stop: int) -> Ids:
        """Which samples stand at the places start..stop-1 of the endless sequence of epochs."""
        return sample_numbers(self.seed, len(self), start, stop, shuffle=self.shuffle)

    def batch(self, step: int, start: int, stop: int) -> Batch:
        """The samples at the places start..stop-1."""
        first = self.sample_numbers(start, stop)[:, None] * self.sequence_length
        windows = np.asarray(self.tokens[first + np.arange(self.sequence_length + 1)]).astype(np.int64)
        documents = None if self.eod_id is None else documents_of(windows[:, :-1], self.eod_id)
        return Batch(step, windows[:, :-1], windows[:, 1:], documents=documents)


def sample_numbers(seed: int, samples: int, start: int, stop: int, *, shuffle: bool = True) -> Ids:
    """Which of `samples` samples stand at the places start..stop-1 of the endless sequence of epochs."""
    places = np.arange(start, stop, dtype=np.int64)
    epochs, offsets = np.divmod(places, samples)
    if not shuffle:
        return offsets
    numbers = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        numbers[here] = _orders(seed, samples)(int(epoch))[offsets[here]]
    return numbers


class BatchSource(Protocol):
    """An endless row of samples."""

    def batch(self, step: int, start: int, stop: int) -> Batch:
        """The samples at the places start..stop-1."""
        ...


def batches(
    stream: BatchSource, steps: range, global_batch: int, data_rank: int = 0, data_degree: int = 1
) -> Iterator[Batch]:
    """A data rank's batch of every step (steps count from 1).

    Step t holds the samples at places [(t-1) B, t B); data rank r takes the r-th of data_degree equal slices.
    """
    share = global_batch // data_degree
    for step in steps:
        start = (step - 1) * global_batch + data_rank * share
        yield stream.batch(step, start, start + share)


@functools.lru_cache(maxsize=256)
def _orders(seed: int, samples: int) -> Callable[[int], Ids]:
    """Epoch -> the order of its samples, for one stream of a blend of up to 256."""

    # A batch may straddle two epochs; drawing an order anew in every step would cost seconds on a large split.
    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> Ids:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
        drawn = generator.permutation(samples).astype(np.int64)
        drawn.flags.writeable = False
        return drawn

    return order
