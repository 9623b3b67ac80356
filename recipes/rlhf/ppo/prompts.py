"""Which prompts every step answers, and with which random numbers: pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recipes.data import sample_numbers
from recipes.instructions.read import Conversation

_DRAWS, _EPOCHS = 1, 2
"""Keep the streams of random numbers of one step apart: what is sampled, and the order of mini-batches by epoch."""


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of a step that one data rank answers.

    Attributes:
        step: The step, from 1.
        conversations: This rank's.
        first: The place of the first of them in the step's whole batch.
        whole: How many prompts the whole batch has.
    """

    step: int
    conversations: tuple[Conversation, ...]
    first: int
    whole: int


def prompt_batches(
    conversations: Sequence[Conversation], steps: range, whole: int, seed: int, data_rank: int = 0, data_degree: int = 1
) -> Iterator[PromptBatch]:
    """A data rank's prompts of every step (steps count from 1): one random order of all prompts after another.

    Step t answers places [(t-1) B, t B) of the endless sequence; data rank r takes the r-th of data_degree slices.
    """
    share = whole // data_degree
    for step in steps:
        start = (step - 1) * whole + data_rank * share
        numbers = sample_numbers(seed, len(conversations), start, start + share)
        yield PromptBatch(step, tuple(conversations[number] for number in numbers), data_rank * share, whole)


def draws(batch: PromptBatch, tokens: int, seed: int) -> npt.NDArray[np.float64]:
    """Uniform random numbers in [0, 1), one for every token of this rank's answers: [samples, tokens].

    They belong to the place in the whole batch: however many ranks share it, a prompt is answered alike.
    """
    rows = slice(batch.first, batch.first + len(batch.conversations))
    return _generator(seed, batch.step, _DRAWS).random((batch.whole, tokens))[rows]


def mini_batch_rows(batch: PromptBatch, epoch: int, mini_batches: int, seed: int) -> list[list[int]]:
    """This rank's rows of every mini-batch of an epoch (from 0), in the order in which they are learnt from.

    Mini-batch m holds the places of the whole batch that are m modulo their number, whoever answers them.
    """
    order = _generator(seed, batch.step, _EPOCHS + epoch).permutation(mini_batches)
    rows = range(len(batch.conversations))
    return [[row for row in rows if (batch.first + row) % mini_batches == number] for number in order]


def _generator(seed: int, step: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, step, stream))))
