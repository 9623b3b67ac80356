"""Two models' scores on the same prompts: who wins how often, and whether chance explains it. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WinRate:
    """How a second model did against a first on the same prompts.

    Attributes:
        wins: Prompts on which the second scored higher.
        losses: Prompts on which it scored lower.
        ties: Prompts on which both scored the same.
        win_rate: (wins + ties / 2) / prompts.
        p_value: Of the two-sided sign test: how often chance alone is at least as lopsided.
    """

    wins: int
    losses: int
    ties: int
    win_rate: float
    p_value: float


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided sign test: p-value of `wins` and `losses` where both are equally likely.

    Ties say nothing about who is better and are left out by the caller (Dixon and Mood 1946). 1.0 where there was
    neither a win nor a loss.

    Raises:
        ValueError: If a count is negative.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses: counts are not negative")
    trials, fewer = wins + losses, min(wins, losses)
    # Whole numbers up to the last division: exact for any number of trials.
    ways = tail = 1
    for count in range(fewer):
        ways = ways * (trials - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**trials)


def compare_scores(first: Sequence[float], second: Sequence[float], tolerance: float = 1e-9) -> WinRate:
    """How the second model's scores compare with the first's; higher is better.

    Args:
        first: The first model's score of every prompt.
        second: The second's, in the same order.
        tolerance: Scores that differ by no more than this are a tie.

    Raises:
        ValueError: If there are no scores, or not equally many.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} scores: needed are equally many, at least one")
    wins = sum(new > old + tolerance for old, new in zip(first, second, strict=True))
    losses = sum(old > new + tolerance for old, new in zip(first, second, strict=True))
    ties = len(first) - wins - losses
    return WinRate(wins, losses, ties, (wins + ties / 2) / len(first), sign_test(wins, losses))
