"""Answers of models as tables: what was asked, what came back, and whether it contains the fact that was asked for."""

import re
from collections.abc import Sequence
from typing import Any

from reports.document import Cell, Column, Table
from reports.facts import number
from reports.formats import fixed

MOST_ON_SIGHT = 12


def plain_prompt(value: Any) -> str:
    """A recorded prompt as text: a string, or messages with role and content, of which the last is the question."""
    if isinstance(value, list):
        contents = [str(turn.get("content", "")) if isinstance(turn, dict) else str(turn) for turn in value]
        return "\n".join(contents)
    return "" if value is None else str(value)


def contains(answer: str, reference: str) -> bool:
    """Whether an answer holds the reference as whole words; case and the width of spaces don't matter."""
    text, wanted = (" ".join(words.casefold().split()) for words in (answer, reference))
    before, after = (r"(?<!\w)" if wanted[:1].isalnum() else ""), (r"(?!\w)" if wanted[-1:].isalnum() else "")
    return bool(wanted) and re.search(before + re.escape(wanted) + after, text) is not None


def answers_table(
    name: str,
    title: str,
    rows: Sequence[dict[str, Any]],
    models: Sequence[tuple[str, str]],
    note: str = "",
    rewards: bool = True,
) -> Table:
    """A row a prompt and a column a model, (key in the row, heading) each; right answers are marked.

    A row's `reward_<key>`, where one is recorded, has a column of its own behind the answer, which is only in the CSV
    without `rewards`.
    """
    columns = [Column("prompt", "question", prose=True), Column("reference", "fact", prose=True)]
    rewarded = [key for key, _ in models if any(number(row.get(f"reward_{key}")) is not None for row in rows)]
    for key, label in models:
        columns.append(Column(key, label, prose=True))
        if key in rewarded:
            columns.append(Column(f"reward_{key}", "reward" if rewards else "", fixed(2), numeric=True))
    cells: list[list[Cell]] = []
    good = set()
    for place, row in enumerate(rows):
        reference = plain_prompt(row.get("reference"))
        line: list[Cell] = [plain_prompt(row.get("prompt")), reference or None]
        for key, _ in models:
            answer = row.get(key)
            line.append(None if answer is None else str(answer))
            line += [number(row.get(f"reward_{key}"))] if key in rewarded else []
            if answer is not None and contains(str(answer), reference):
                good.add((place, key))
        cells.append(line)
    notes = ["Green with a tick: the answer contains the fact."] if good else []
    if len(cells) > MOST_ON_SIGHT:
        notes.append(f"{MOST_ON_SIGHT} of {len(cells)} questions, spread evenly; the CSV has all.")
    note = " ".join(words for words in (*notes, note) if words)
    return Table(name, title, columns, cells, note, absent="–", good=frozenset(good), most_rows=MOST_ON_SIGHT)
