"""How well models predict a text: nats, perplexity, bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from recipes.data import Ids

CONVENTION = (
    "stream = end token + document + end token + document ... + end token, cut into consecutive windows of the model's "
    "sequence length without carried context; every token but the first is predicted exactly once; bits per byte = "
    "nats / ln 2 / UTF-8 bytes of the text (end tokens' bits counted, no bytes for them); unigram = training-split "
    "counts plus one"
)

Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Score:
    """Summed negative log likelihood of `tokens` predicted tokens."""

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(mean nats per token)."""
        return math.exp(self.nats / self.tokens)

    def bits_per_byte(self, text_bytes: int) -> float:
        """Bits to encode the text, per byte: vocabularies compare by it."""
        return self.nats / math.log(2.0) / text_bytes


def evaluation_stream(tokens: npt.NDArray[np.generic], eod_id: int) -> Ids:
    """The split's tokens with one end token in front, so that the first document is predicted like the others."""
    return np.concatenate(([eod_id], np.asarray(tokens, dtype=np.int64)))


def windows(stream: Ids, sequence_length: int, batch_samples: int) -> Iterator[tuple[Ids, Ids]]:
    """Inputs and labels [samples, length] that cover every label once; the last, shorter window comes alone."""
    labels_total = len(stream) - 1
    whole = labels_total // sequence_length
    cut = whole * sequence_length
    inputs, labels = (stream[shift : shift + cut].reshape(whole, sequence_length) for shift in (0, 1))
    for start in range(0, whole, batch_samples):
        yield inputs[start : start + batch_samples], labels[start : start + batch_samples]
    if cut < labels_total:
        yield stream[None, cut:-1], stream[None, cut + 1 :]


@torch.no_grad()
def score_model(logits: Logits, stream: Ids, sequence_length: int, batch_samples: int, device: torch.device) -> Score:
    """Scores a model; `logits` maps tokens [samples, length] to [samples, length, vocab]."""
    nats, count = 0.0, 0
    for inputs, labels in windows(stream, sequence_length, batch_samples):
        predicted = logits(torch.from_numpy(inputs).to(device)).float()
        target = torch.from_numpy(labels).to(device)
        nats += F.cross_entropy(predicted.flatten(0, 1), target.flatten(), reduction="sum").item()
        count += labels.size
    return Score(nats, count)


def score_unigram(training: npt.NDArray[np.generic], stream: Ids, vocab: int) -> Score:
    """Scores the model that knows only how frequent tokens are in the training split, add-one smoothed."""
    counts = np.bincount(np.asarray(training, dtype=np.int64), minlength=vocab).astype(np.float64) + 1.0
    nats = -np.log(counts / counts.sum())[stream[1:]].sum()
    return Score(float(nats), len(stream) - 1)
