"""What each rank owns of parameters, gradients and optimizer state, as ZeRO runs record it."""

import re
from collections.abc import Mapping
from typing import Any

from reports.document import Block, Cell, Column, Figure, Table
from reports.facts import RunFacts, number
from reports.figures.cost import stacked
from reports.formats import plural, size, whole

OWNED = re.compile(r"owned_(\w+?)_bytes_rank_(\d+)")
NAMES = {"parameter": "parameters", "gradient": "gradients", "optimizer": "optimizer state"}


def ownership_blocks(facts: RunFacts) -> list[Block]:
    """A figure and a table of the bytes that every rank owns after the last step; nothing where not recorded.

    Jobs of many ranks record the largest share and the sum alone, which then are a table.
    """
    owned = owned_bytes(facts)
    if not owned:
        return _largest(facts)
    found = {part for parts in owned.values() for part in parts}
    parts = [part for part in NAMES if part in found] + sorted(found - set(NAMES))
    labels = [NAMES.get(part, part.replace("_", " ")) for part in parts]
    columns = [Column("rank", "rank", whole, numeric=True)]
    columns += [Column(f"{part}_bytes", label, size, numeric=True) for part, label in zip(parts, labels, strict=True)]
    columns.append(Column("total_bytes", "together", size, numeric=True))
    rows: list[list[Cell]] = []
    for rank, held in sorted(owned.items()):
        rows.append([rank, *[held.get(part) for part in parts], sum(held.values())])
    largest = max(sum(held.values()) for held in owned.values())
    title = f"The largest of {plural(len(owned), 'rank')} owns {size(largest)} of model and optimizer state"
    bars = [(f"rank {rank}", [float(held.get(part, 0)) for part in parts]) for rank, held in sorted(owned.items())]
    caption = "Bytes that each rank holds itself; what several ranks hold whole counts for each of them."
    return [
        Figure("owned", title, stacked("owned", bars, labels, size, alt=title), caption),
        Table("owned", "Owned by each rank", columns, rows),
    ]


def _largest(facts: RunFacts) -> list[Block]:
    keys = [(f"owned_{part}_bytes_largest", f"owned_{part}_bytes_total", label) for part, label in NAMES.items()]
    record = next((r for r in reversed(facts.metrics) if any(largest in r for largest, _, _ in keys)), None)
    if record is None:
        return []
    rows: list[list[Cell]] = [[label, number(record.get(one)), number(record.get(every))] for one, every, label in keys]
    columns = (
        Column("part", "part"),
        Column("largest_bytes", "largest share of a rank", size, numeric=True),
        Column("total_bytes", "all ranks", size, numeric=True),
    )
    return [Table("owned", "Owned by the ranks", columns, rows)]


def owned_bytes(facts: RunFacts) -> dict[int, dict[str, int]]:
    """Rank -> part -> bytes, from the last step that recorded them."""
    record: Mapping[str, Any] = next((r for r in reversed(facts.metrics) if any(map(OWNED.fullmatch, r))), {})
    owned: dict[int, dict[str, int]] = {}
    for key, value in record.items():
        match, held = OWNED.fullmatch(key), number(value)
        if match and held is not None:
            owned.setdefault(int(match[2]), {})[match[1]] = int(held)
    return owned
