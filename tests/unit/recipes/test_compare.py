"""The sign test against a count of all outcomes, and win rates."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.evaluate.compare import compare_scores, sign_test


def counted(wins: int, losses: int) -> float:
    """The share of all sequences of coin throws that are at least as lopsided."""
    trials = wins + losses
    outcomes = [sum(throws) for throws in itertools.product((0, 1), repeat=trials)]
    lopsided = [heads for heads in outcomes if abs(2 * heads - trials) >= abs(wins - losses)]
    return len(lopsided) / len(outcomes)


@pytest.mark.parametrize(("wins", "losses"), [(w, n - w) for n in range(11) for w in range(n + 1)])
def test_the_p_value_is_the_share_of_all_outcomes_that_are_at_least_as_lopsided(wins: int, losses: int) -> None:
    assert sign_test(wins, losses) == pytest.approx(counted(wins, losses), abs=1e-15)


def test_known_values() -> None:
    # binom.test(15, 20) and binom.test(60, 100) of R.
    assert sign_test(15, 5) == pytest.approx(0.04138946533203125, rel=1e-12)
    assert sign_test(60, 40) == pytest.approx(0.05688793364098, rel=1e-9)
    assert sign_test(0, 0) == 1.0
    assert sign_test(3000, 0) < 1e-300  # too many trials for a float, not for whole numbers
    assert 0.9 < sign_test(5_000, 5_010) < 1.0


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        sign_test(-1, 3)


def test_a_comparison_counts_prompt_by_prompt() -> None:
    result = compare_scores([0.0, 0.5, 1.0, 0.2], [1.0, 0.5, 0.5, 0.3])
    assert (result.wins, result.losses, result.ties) == (2, 1, 1)
    assert result.win_rate == pytest.approx(2.5 / 4)
    assert result.p_value == sign_test(2, 1)


def test_a_difference_of_rounding_is_a_tie() -> None:
    assert compare_scores([0.1 + 0.2], [0.3]).ties == 1


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1))
def test_changing_sides_turns_the_comparison_round(pairs: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = compare_scores(first, second), compare_scores(second, first)
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.win_rate == pytest.approx(1 - back.win_rate)
    assert there.p_value == back.p_value


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [])])
def test_scores_that_do_not_pair_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="equally many"):
        compare_scores(first, second)
