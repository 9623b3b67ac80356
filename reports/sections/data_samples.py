"""Documents to look at: some that were kept and some that were dropped, chosen by chance; what could not be read."""

from collections.abc import Mapping, Sequence
from typing import Any

from kit.tokens.card import BlockCard, DatasetCard
from reports.document import Block, Cell, Column, Excerpt, Excerpts, Listing, Table
from reports.facts import RunFacts, rows_of
from reports.formats import percent, plural, whole

READ = "read"  # the block that decodes records
# What the reasons of that block mean, for people; others are shown by their name.
MEANINGS = {
    "corrupt_record": "damaged: not even its length could be relied on",
    "truncated_record": "shorter than its header says",
    "undecodable_content": "compressed in a way that could not be undone",
    "record_too_large": "stored size above read.max_record_bytes",
    "page_too_large": "page above read.max_page_bytes once unpacked",
    "unknown_record_type": "its header names no known type of record",
    "not_http": "a response without HTTP headers",
    "http_status": "not answered with status 200",
    "not_html": "neither HTML nor XHTML",
    "empty_body": "nothing in it",
    "revisit": "says only that an earlier crawl had the same page",
}
UNREAD_COLUMNS = (
    Column("reason", "reason"),
    Column("meaning", "what it means", prose=True),
    Column("records", "records", whole, numeric=True),
    Column("share_of_input", "share of all", percent, numeric=True),
)
SKIPPED_ON_SIGHT = 10
SAMPLE_COLUMNS = (
    Column("side", "side"),
    Column("block", "dropped by"),
    Column("reason", "reason"),
    Column("language", "language"),
    Column("characters", "characters", whole, numeric=True),
    Column("url", "address"),
    Column("id"),
    Column("file"),
)


def unread_tables(card: DatasetCard, facts: RunFacts) -> list[Block]:
    """Returns the records that could not be read or were no pages, and the files that were skipped whole."""
    lost = next((block for block in card.blocks if block.name == READ), None)
    tables: list[Block] = [_unread(lost, card)] if lost and lost.dropped else []
    skipped = [event for event in facts.events if event["event"] == "skipped_file"]
    if skipped:
        lines = "\n".join(f"{event.get('path', '')}: {event.get('reason', '')}" for event in skipped)
        title = f"{plural(len(skipped), 'input file')} skipped"
        tables.append(Listing(title, lines, collapsed=len(skipped) > SKIPPED_ON_SIGHT))
    return tables


def _unread(lost: BlockCard, card: DatasetCard) -> Table:
    rows: list[list[Cell]] = [
        [reason, MEANINGS.get(reason, ""), count, count / card.documents_in if card.documents_in else None]
        for reason, count in sorted(lost.dropped.items(), key=lambda item: (-item[1], item[0]))
    ]
    total = sum(lost.dropped.values())
    damaged = f"; {card.records_corrupt:,} of them damaged" if card.records_corrupt else ""
    return Table("unread", f"{plural(total, 'record')} not read{damaged}", UNREAD_COLUMNS, rows)


def sample_blocks(samples: Mapping[str, Any], collapsed: bool) -> list[Block]:
    """Returns the documents themselves, the kept and the dropped ones, and a table of them."""
    kept, dropped = rows_of(samples.get("kept")), rows_of(samples.get("dropped"))
    blocks: list[Block] = []
    if kept:
        title = f"{plural(len(kept), 'kept document')}, chosen by chance"
        blocks.append(Excerpts(title, [_excerpt(row) for row in kept], collapsed))
    if dropped:
        title = f"{plural(len(dropped), 'dropped document')}, chosen by chance"
        blocks.append(Excerpts(title, [_excerpt(row) for row in dropped], collapsed))
    return [*blocks, *_sample_table(kept, dropped)]


def _excerpt(row: Mapping[str, Any]) -> Excerpt:
    reason, text, characters = str(row.get("reason", "")), str(row.get("text", "")), row.get("characters")
    more = isinstance(characters, int) and characters > len(text)
    words = [str(row.get("language", "")), f"{characters:,} characters" if isinstance(characters, int) else ""]
    source = " · ".join(word for word in [*words, _address(row)] if word)
    why = f"{reason} ({row.get('block', '')})\n" if reason else ""
    return Excerpt(source, text.strip() + (" …" if more else ""), prompt=why)


def _sample_table(kept: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]) -> list[Block]:
    rows = [_sample_row(side, row) for side, found in (("kept", kept), ("dropped", dropped)) for row in found]
    title = "The same documents as a table"
    return [Table("samples", title, SAMPLE_COLUMNS, rows, collapsed=True)] if rows else []


def _sample_row(side: str, row: Mapping[str, Any]) -> list[Cell]:
    block, reason, language, name, file = (str(row.get(k, "")) for k in ("block", "reason", "language", "id", "file"))
    return [side, block, reason, language, row.get("characters"), _address(row), name, file]


def _address(row: Mapping[str, Any]) -> str:
    return str(row.get("url") or row.get("id") or "")
