"""A reward model in training: a transformer with a scalar head that scores the better answer of a pair higher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.errors import UserError
from recipes.chat.template import ChatTemplate
from recipes.data import sample_numbers
from recipes.distributed.processes import DTYPES, Processes
from recipes.engines.accelerate.stepper import Stepper
from recipes.engines.protocol import StepResult
from recipes.instructions.encode import LARGEST_DROPPED_SHARE
from recipes.reward.config import RewardConfig
from recipes.reward.preferences import Preference
from recipes.rewards.model import answer_ids, scores


@dataclass(frozen=True)
class Pair:
    """The ids of a prompt with its better and with its worse answer."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def length(self) -> int:
        """The longer of the two."""
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class PairBatch:
    """The part of a step's pairs that one data rank learns from."""

    step: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Judgement:
    """How a reward model ranks pairs.

    Attributes:
        loss: Mean nats per pair.
        accuracy: The share of pairs whose better answer has the higher score.
        margin: Mean score of the better answer minus that of the worse.
        mean, std: Of all scores.
    """

    loss: float
    accuracy: float
    margin: float
    mean: float
    std: float


def encode_pairs(
    template: ChatTemplate, preferences: Sequence[Preference], sequence_length: int
) -> tuple[list[tuple[Preference, Pair]], int]:
    """Every pair with its ids; those with more than sequence_length tokens are left out and counted.

    Raises:
        UserError: If more than half of them are too long.
    """
    encoded = []
    for one in preferences:
        ids = (tuple(answer_ids(template, one.prompt, answer)) for answer in (one.chosen, one.rejected))
        encoded.append((one, Pair(*ids)))
    kept = [both for both in encoded if both[1].length <= sequence_length]
    dropped = len(encoded) - len(kept)
    if dropped > LARGEST_DROPPED_SHARE * len(encoded):
        raise UserError(
            f"{dropped} of {len(encoded)} pairs have an answer that ends beyond {sequence_length} tokens",
            expected=f"at most {LARGEST_DROPPED_SHARE:.0%} that don't fit; these are left out",
            action="raise data.sequence_length (up to the model's context), or give shorter answers",
        )
    return kept, dropped


def pair_batches(
    pairs: Sequence[Pair], steps: range, whole: int, seed: int, data_rank: int, data_degree: int
) -> Iterator[PairBatch]:
    """A data rank's pairs of every step (steps count from 1): one random order of all pairs after another."""
    share = whole // data_degree
    for step in steps:
        start = (step - 1) * whole + data_rank * share
        numbers = sample_numbers(seed, len(pairs), start, start + share)
        yield PairBatch(step, tuple(pairs[number] for number in numbers))


def build_reward_model(directory: Path, template: ChatTemplate, seed: int) -> Any:
    """A language model's transformer with a new scalar head (Ouyang et al. 2022, section 3.5), fp32 on the CPU.

    Raises:
        UserError: If transformers has no classifier of that family.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(
                directory, num_labels=1, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{directory}: {(str(error).splitlines() or [type(error).__name__])[0]}",
            expected="a model of a family that transformers knows as a sequence classifier",
            action="choose another model",
        ) from error
    # The score is read on the last id that isn't padding.
    model.config.pad_token_id = template.pad_id
    return model


class PairwiseReward:
    """Owns the reward model and the optimizer of one rank; `recipes.loop.Trainable`.

    The loss is -log sigma(score of the better - score of the worse), the model of Bradley and Terry 1952 as Christiano
    et al. 2017 (section 2.2.3) and Ouyang et al. 2022 (equation 1) use it, averaged over the pairs of the whole job.
    """

    name = "pairwise"

    def __init__(self, config: RewardConfig, model: Any, pad_id: int, processes: Processes) -> None:
        self.data_rank, self.data_degree = processes.rank, config.layout.data
        self._whole, self._micro = config.data.global_batch_samples, config.data.micro_batch_samples
        self._pad_id, self._processes = pad_id, processes
        self._dtype = DTYPES[config.precision]
        self._stepper = Stepper(model, config, processes, self._dtype)
        self.save_state, self.load_state = self._stepper.save, self._stepper.load

    @property
    def model(self) -> Any:
        """The bare model."""
        return self._stepper.module

    def train_step(self, batch: PairBatch, learning_rate: float) -> StepResult:
        """One optimizer step. *Collective*: every rank, each with its own pairs."""
        self.model.train()
        sums = torch.zeros(3, dtype=torch.float64)
        pieces = _pieces(batch.pairs, self._micro)

        def losses() -> Iterator[Tensor]:
            for piece in pieces:
                chosen, rejected = self._scores(piece, self._stepper.wrapped)
                loss = pair_losses(chosen, rejected).sum()
                margins = (chosen - rejected).detach().double()
                sums.add_(torch.stack([loss.detach().double(), (margins > 0).sum(), margins.sum()]).cpu())
                yield loss / self._whole

        norm = self._stepper.step(losses(), learning_rate, len(pieces))
        loss, right, margin = (self._processes.total(number) / self._whole for number in sums.tolist())
        tokens = self._processes.total(float(sum(len(p.chosen) + len(p.rejected) for p in batch.pairs)))
        return StepResult(loss, norm, round(tokens), {"accuracy": right, "margin": margin})

    @torch.no_grad()
    def judge(self, pairs: Sequence[Pair]) -> Judgement:
        """How the model ranks pairs now. *Collective*: every rank, with the same pairs, of which it scores a share."""
        self.model.eval()
        sums = torch.zeros(5, dtype=torch.float64)
        for piece in _pieces(pairs[self.data_rank :: self.data_degree], self._micro):
            chosen, rejected = (found.double().cpu() for found in self._scores(piece))
            both, margins = torch.cat((chosen, rejected)), chosen - rejected
            losses = pair_losses(chosen, rejected).sum()
            sums += torch.stack([losses, (margins > 0).sum(), margins.sum(), both.sum(), both.square().sum()])
        loss, right, margin, total, squares = (self._processes.total(n) / len(pairs) for n in sums.tolist())
        mean = total / 2
        return Judgement(loss, right, margin, mean, max(0.0, squares / 2 - mean * mean) ** 0.5)

    def _scores(self, pairs: Sequence[Pair], forward: Any = None) -> tuple[Tensor, Tensor]:
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        chosen, rejected = scores(self.model, rows, self._pad_id, forward).split(len(pairs))
        return chosen, rejected


def pair_losses(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Nats per pair [pairs]: minus the log-probability that the better answer is preferred."""
    return -F.logsigmoid(chosen - rejected)


def _pieces(pairs: Sequence[Pair], samples: int) -> list[list[Pair]]:
    """Pairs in groups of like length, so that little is padding."""
    ordered = sorted(pairs, key=lambda pair: pair.length)
    return [ordered[start : start + samples] for start in range(0, len(ordered), samples)]
