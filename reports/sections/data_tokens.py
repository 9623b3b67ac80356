"""Where the tokens of a dataset come from, and how many of them a word takes."""

from collections.abc import Mapping
from typing import Any

from kit.tokens.card import DatasetCard
from reports.document import Block, Cell, Column, Table
from reports.facts import number
from reports.formats import fixed, percent, size, whole

SOURCES_ON_SIGHT = 10
LONGEST_HEAD = 14  # characters of a tokenizer's name that fit over a column
SOURCE_COLUMNS = (
    Column("source", "source", code=True),
    Column("documents", "documents kept", whole, numeric=True),
    Column("dropped", "dropped", whole, numeric=True),
    Column("text_bytes", "text", size, numeric=True),
    Column("tokens", "tokens", whole, numeric=True),
    Column("token_share", "share of tokens", percent, numeric=True),
)


def source_table(card: DatasetCard) -> list[Block]:
    """Returns what every input file, or source of the mixture, gave."""
    total = sum(found.tokens for found in card.sources.values())
    rows: list[list[Cell]] = [
        [
            name,
            found.documents,
            found.dropped,
            found.bytes,
            found.tokens if total else None,
            found.tokens / total if total else None,
        ]
        for name, found in sorted(card.sources.items(), key=lambda item: (-item[1].tokens, -item[1].bytes, item[0]))
    ]
    many = len(rows) > SOURCES_ON_SIGHT
    title = "Tokens by source"
    return [Table("sources", title, SOURCE_COLUMNS, rows, brief=not many, collapsed=many)] if rows else []


def fertility_table(fertility: Mapping[str, Any]) -> list[Block]:
    """Returns tokens a word and a byte by language, beside those of another tokenizer where one was given."""
    languages = fertility.get("languages")
    if not isinstance(languages, dict) or not languages:
        return []
    peer = str(fertility.get("peer") or "")
    rows = [_fertility_row(str(name), row) for name, row in languages.items() if isinstance(row, dict)]
    rows.sort(key=lambda row: (-float(row[2] or 0), str(row[0])))
    note = "On a sample of the kept text. Fewer tokens a word mean shorter sequences for the same text."
    if peer:
        note += f" The other tokenizer is {peer}; the better one is marked."
    title = "Tokens a word" + (f", against {peer}" if peer else "")
    columns = _fertility_columns(peer)
    good = frozenset(
        (place, "tokens_per_word" if float(row[3]) <= float(row[5]) else "peer_tokens_per_word")
        for place, row in enumerate(rows)
        if peer and isinstance(row[3], float) and isinstance(row[5], float)
    )
    return [Table("fertility", title, columns, rows, note, good=good)]


def _fertility_columns(peer: str) -> tuple[Column, ...]:
    other = peer if len(peer) <= LONGEST_HEAD else "the other"
    word, byte = (f"{other}, a {unit}" if peer else "" for unit in ("word", "byte"))  # without a label: only in the CSV
    return (
        Column("language", "language"),
        Column("documents", "documents", whole, numeric=True),
        Column("words", "words", whole, numeric=True),
        Column("tokens_per_word", "tokens a word", fixed(2), numeric=True),
        Column("tokens_per_byte", "tokens a byte", fixed(3), numeric=True),
        Column("peer_tokens_per_word", word, fixed(2), numeric=True),
        Column("peer_tokens_per_byte", byte, fixed(3), numeric=True),
    )


def _fertility_row(name: str, row: Mapping[str, Any]) -> list[Cell]:
    rates = ("tokens_per_word", "tokens_per_byte", "peer_tokens_per_word", "peer_tokens_per_byte")
    counts = [number(row.get(key)) for key in ("documents", "words")]
    whole_counts = [None if count is None else int(count) for count in counts]
    return [name, *whole_counts, *[number(row.get(rate)) for rate in rates]]
