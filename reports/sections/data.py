"""The data section: what went in, what each block dropped and why, and what came out."""

from typing import Any

from kit.tokens.card import BlockCard, DatasetCard
from reports.document import Block, Cell, Column, Excerpt, Excerpts, Figure, Paragraph, Section, Table
from reports.figures.data import funnel, ranking
from reports.formats import duration, percent, plural, short_digest, size, whole
from reports.story import Story

REASONS_IN_A_LINE = 2
INPUTS_ON_SIGHT = 10  # more input files than this are shown on request
FUNNEL_COLUMNS = (
    Column("block", "block"),
    Column("documents_in", "documents in", whole, numeric=True),
    Column("documents_out", "documents out", whole, numeric=True),
    Column("kept", "kept", percent, numeric=True),
    Column("bytes_in", "bytes in", size, numeric=True),
    Column("bytes_out", "bytes out", size, numeric=True),
    Column("seconds", "time", duration, numeric=True),
    Column("dropped", "main reasons"),
)
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
LANGUAGE_COLUMNS = (
    Column("language", "language"),
    Column("documents", "documents", whole, numeric=True),
    Column("bytes", "text", size, numeric=True),
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
    blocks: list[Block] = [_funnel_figure(card), *_reason_figure(card), *_language_figure(card), *_inputs(card)]
    blocks += [_funnel_table(card), *_reason_table(card)]
    blocks += [_examples(block) for block in card.blocks if any(block.examples.values())]
    blocks += _outcome_tables(card)
    return Section("data", "Data", _lead(card), blocks)


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
    counts: dict[str, int] = {}
    for block in card.blocks:
        for reason, count in block.dropped.items():
            counts[reason] = counts.get(reason, 0) + count
    if not counts:
        return []
    top = max(counts, key=lambda reason: (counts[reason], reason))
    title = f"“{top}” dropped the most: {plural(counts[top], 'document')}"
    rows = [(reason, float(count), f"{count:,}") for reason, count in counts.items()]
    return [
        Figure(
            "reasons",
            title,
            ranking("reasons", rows, alt=title, drops=True),
            "Documents dropped, by reason, all blocks.",
        )
    ]


def _language_figure(card: DatasetCard) -> list[Block]:
    if not card.languages:
        return []
    top = max(card.languages, key=lambda language: (card.languages[language].bytes, language))
    total = sum(found.bytes for found in card.languages.values())
    share = percent(_share(card.languages[top].bytes, total))
    title = f"{plural(len(card.languages), 'language')}; “{top}” is {share} of the text"
    rows = [
        (language, float(found.bytes), f"{size(found.bytes)} · {found.documents:,}")
        for language, found in card.languages.items()
    ]
    caption = "Text bytes and documents by language, after all blocks."
    return [Figure("languages", title, ranking("languages", rows, alt=title), caption)]


def _funnel_table(card: DatasetCard) -> Table:
    rows: list[list[Cell]] = [
        [
            block.name,
            block.documents_in,
            block.documents_out,
            _share(block.documents_out, block.documents_in),
            block.bytes_in,
            block.bytes_out,
            block.seconds or None,
            _mostly(block.dropped),
        ]
        for block in card.blocks
    ]
    return Table("funnel", "Block by block", FUNNEL_COLUMNS, rows)


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


def _outcome_tables(card: DatasetCard) -> list[Block]:
    splits: list[list[Cell]] = [
        [
            name,
            split.documents,
            split.tokens,
            split.text_bytes,
            split.text_bytes / split.tokens if split.tokens else None,
            split.sha256_bin,
        ]
        for name, split in card.splits.items()
    ]
    languages: list[list[Cell]] = [
        [name, found.documents, found.bytes]
        for name, found in sorted(card.languages.items(), key=lambda item: -item[1].bytes)
    ]
    note = "Tokens include one end-of-document token per document; text bytes are UTF-8 without it."
    tables: list[Block] = [Table("splits", "Splits", SPLIT_COLUMNS, splits, note)]
    if languages:
        tables.append(Table("languages", "Languages", LANGUAGE_COLUMNS, languages, brief=False, collapsed=True))
    return tables


def _inputs(card: DatasetCard) -> list[Block]:
    rows: list[list[Cell]] = [[found.path, found.bytes, found.sha256] for found in card.inputs]
    many = len(rows) > INPUTS_ON_SIGHT
    return [Table("inputs", "Inputs", INPUT_COLUMNS, rows, brief=False, collapsed=many)] if rows else []
