"""Who measures with whom, and when: every pair once, in rounds where nobody is in two pairs. Pure."""

from __future__ import annotations

Pair = tuple[int, int]


def rounds_of(ranks: int) -> list[list[Pair]]:
    """All pairs by the circle method of tournaments: one stays, the others turn by one place a round.

    Returns:
        ranks - 1 rounds (an odd number of ranks: as many as ranks, and each sits out once) of pairs in ascending order.
    """
    table: list[int | None] = [*range(ranks)]
    if ranks % 2:
        table.append(None)
    rounds = []
    for _ in range(len(table) - 1):
        half = len(table) // 2
        facing = zip(table[:half], reversed(table[half:]), strict=True)
        rounds.append(sorted((min(a, b), max(a, b)) for a, b in facing if a is not None and b is not None))
        table = [table[0], table[-1], *table[1:-1]]
    return rounds


def turns_of(ranks: int, at_once: bool) -> list[list[Pair]]:
    """The pairs of each turn: a whole round, or one pair alone."""
    rounds = rounds_of(ranks)
    return rounds if at_once else [[pair] for pairs in rounds for pair in pairs]
