"""The data section: what went in, what each block dropped and why, and what came out."""

from pathlib import Path
from typing import Any

from kit.files import read_record
from kit.tokens.card import BlockCard, DatasetCard
from reports.document import Block, Cell, Column, Excerpt, Excerpts, Figure, Paragraph, Section, Table
from reports.figures.data import funnel, ranking
from reports.formats import percent, plural, short_digest, size, whole
from reports.sections.data_samples import sample_blocks, unread_tables
from reports.sections.data_statistics import (
    cluster_figure,
    language_figure,
    largest_clusters,
    length_figure,
    statistics_tables,
)
from reports.sections.data_time import short_time, step_table, time_figure
from reports.sections.data_tokens import fertility_table, source_table
from reports.story import Story

REASONS_IN_A_LINE = 2
INPUTS_ON_SIGHT = 10  # more input files than this are shown on request
REASON_COLUMNS = (
    Column("block", "block"),
    Column("reason", "reason"),
    Column("documents", "documents", whole, numeric=True),
    Column("share_of_input", "share of all documents", percent, numeric=True),
)
SPLIT_COLUMNS = (
    Column("split", "split"),
    Column("documents", "documents", whole, numeric=True),
    Column("tokens", "tokens", whole, numeric=True),
    Column("text_bytes", "text", size, numeric=True),
    Column("bytes_per_token", "bytes per token", lambda value: f"{value:.2f}", numeric=True),
    Column("sha256_bin", "shard digest", short_digest, code=True),
)
INPUT_COLUMNS = (
    Column("path", "input file", code=True),
    Column("bytes", "size", size, numeric=True),
    Column("sha256", "digest", short_digest, code=True),
)


def data_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on the data, or None where no data run belongs to the report."""
    if story.data is None:
        return None
    card = story.data.card
    if card is None:
        missing = "The data run wrote no dataset card, so nothing is known of its documents: it did not finish."
        return Section("data", "Data", "", [Paragraph(missing, tone="notice")])
    artifacts = story.data.run.artifacts
    fertility = _recorded(artifacts / "fertility.json", "tokens a word by language, as data_prep writes them")
    clusters = _recorded(artifacts / "clusters.json", "a summary of the near duplicates, as data_prep writes it")
    samples = _recorded(artifacts / "samples.json", "the sampled documents, as data_prep writes them")
    blocks: list[Block] = [_funnel_figure(card), *time_figure(card), *_reason_figure(card), *language_figure(card)]
    blocks += [*length_figure(card), *cluster_figure(card), *_inputs(card)]
    blocks += [_funnel_table(card), *unread_tables(card, story.data), *source_table(card), _split_table(card)]
    blocks += [*fertility_table(fertility), *_reason_table(card)]
    blocks += [*statistics_tables(card), *largest_clusters(clusters), *step_table(card)]
    blocks += [_examples(block) for block in card.blocks if any(block.examples.values())]
    return Section("data", "Data", _lead(card), [*blocks, *sample_blocks(samples, collapsed=story.chain)])


def _recorded(path: Path, what: str) -> dict[str, Any]:
    """The content of a file that only newer runs have; empty for older ones."""
    return read_record(path, what, newest_schema=1) if path.exists() else {}


def _reason_table(card: DatasetCard) -> list[Block]:
    rows: list[list[Cell]] = [
        [block.name, reason, count, _share(count, card.documents_in)]
        for block in card.blocks
        for reason, count in sorted(block.dropped.items(), key=lambda item: (-item[1], item[0]))
    ]
    note = "Shares are of the documents that came in."
    return (
        [Table("drop_reasons", "Every reason, by block", REASON_COLUMNS, rows, note, brief=False, collapsed=True)]
        if rows
        else []
    )


def _lead(card: DatasetCard) -> str:
    tokenizer = card.tokenizer
    corrupt = f" {plural(card.records_corrupt, 'corrupt record')} skipped and counted." if card.records_corrupt else ""
    return (
        f"{whole(card.documents_in)} documents from {plural(len(card.inputs), 'input file')}, "
        f"{whole(card.documents_out)} kept; {tokenizer.kind} tokenizer of {whole(tokenizer.vocab_size)} pieces "
        f"(fingerprint {short_digest(tokenizer.fingerprint)}).{corrupt}"
    )


def _share(part: int, total: int) -> float | None:
    return part / total if total else None


def _funnel_figure(card: DatasetCard) -> Figure:
    kept = _share(card.documents_out, card.documents_in)
    title = f"{percent(kept)} of {plural(card.documents_in, 'document')} remain after all blocks"
    rows = []
    if card.blocks and card.blocks[0].documents_out < card.documents_in:  # a reader that drops nothing is the input
        rows.append(("input", card.documents_in, _funnel_note(card.documents_in, card.blocks[0].bytes_in)))
    rows += [
        (block.name, block.documents_out, _funnel_note(block.documents_out, block.bytes_out)) for block in card.blocks
    ]
    caption = (
        "Documents left after each block, with their bytes: records as read before extraction, UTF-8 text after it."
    )
    return Figure("funnel", title, funnel(rows, alt=title), caption)


def _funnel_note(documents: int, count: int) -> str:
    return f"{documents:,} · {size(count)}" if count else f"{documents:,}"


def _reason_figure(card: DatasetCard) -> list[Block]:
    counts = {(block.name, reason): count for block in card.blocks for reason, count in block.dropped.items()}
    if not counts:
        return []
    top = max(counts, key=lambda found: (counts[found], found))
    title = f"“{top[1]}” dropped the most: {plural(counts[top], 'document')}"
    rows = [(f"{reason} ({block})", float(count), f"{count:,}") for (block, reason), count in counts.items()]
    caption = "Documents dropped, by reason and block. Each document is counted once, where it was dropped."
    return [Figure("reasons", title, ranking("reasons", rows, alt=title, drops=True), caption)]


def _funnel_table(card: DatasetCard) -> Table:
    timed = any(block.cpu_seconds is not None for block in card.blocks)
    rows: list[list[Cell]] = []
    for block in card.blocks:
        seconds = (block.cpu_seconds if timed else block.seconds) or None
        row: list[Cell] = [block.name, block.documents_in, block.documents_out]
        row += [_share(block.documents_out, block.documents_in), block.bytes_in, block.bytes_out]
        row += [seconds, block.documents_in / seconds if seconds else None, _mostly(block.dropped)]
        rows.append(row)
    return Table("funnel", "Block by block", _funnel_columns(timed), rows, absent="–")


def _funnel_columns(timed: bool) -> tuple[Column, ...]:
    return (
        Column("block", "block"),
        Column("documents_in", "documents in", whole, numeric=True),
        Column("documents_out", "documents out", whole, numeric=True),
        Column("kept", "kept", percent, numeric=True),
        Column("bytes_in", "bytes in", size, numeric=True),
        Column("bytes_out", "bytes out", size, numeric=True),
        Column("cpu_seconds" if timed else "seconds", "CPU time" if timed else "time", short_time, numeric=True),
        Column("documents_per_second", "documents/s", whole, numeric=True),
        Column("dropped", "main reasons"),
    )


def _mostly(dropped: dict[str, int]) -> str:
    """The commonest reasons of a block in one line; empty where it dropped nothing."""
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{reason} {count:,}" for reason, count in ordered[:REASONS_IN_A_LINE]]
    more = len(ordered) - REASONS_IN_A_LINE
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _examples(block: BlockCard) -> Excerpts:
    items = [
        Excerpt(f"{reason} · {example.url or example.id}", example.text)
        for reason, examples in sorted(block.examples.items())
        for example in examples
    ]
    dropped = sum(block.dropped.values())
    return Excerpts(f"Examples of what {block.name} dropped ({len(items)} of {dropped:,})", items, collapsed=True)


def _split_table(card: DatasetCard) -> Table:
    rows: list[list[Cell]] = []
    for name, split in card.splits.items():
        rate = split.text_bytes / split.tokens if split.tokens else None
        rows.append([name, split.documents, split.tokens, split.text_bytes, rate, split.sha256_bin])
    note = "Tokens include one end-of-document token per document; text bytes are UTF-8 without it."
    return Table("splits", "Splits", SPLIT_COLUMNS, rows, note)


def _inputs(card: DatasetCard) -> list[Block]:
    rows: list[list[Cell]] = [[found.path, found.bytes, found.sha256] for found in card.inputs]
    many = len(rows) > INPUTS_ON_SIGHT
    return [Table("inputs", "Inputs", INPUT_COLUMNS, rows, brief=False, collapsed=many)] if rows else []
