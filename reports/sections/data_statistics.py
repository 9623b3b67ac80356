"""What the documents of a data run were: their languages, their lengths, and how many were alike.

Every part is left out where the run did not record it, as the cards of earlier versions.
"""

from collections.abc import Mapping
from typing import Any

from kit.tokens.card import DatasetCard, LanguageCard
from reports.document import Block, Cell, Column, Figure, Table
from reports.facts import number, rows_of
from reports.figures.corpus import before_and_after, in_order, lengths
from reports.figures.data import MOST_BARS, ranking
from reports.figures.style import VERMILION
from reports.formats import counted, percent, plural, size, whole

SMALL_CLUSTER, LARGE_CLUSTER = 4, 512  # documents; a size of its own up to the one, one group beyond the other
LANGUAGE_COLUMNS = (
    Column("language", "language"),
    Column("documents_in", "documents identified", whole, numeric=True),
    Column("bytes_in", "text identified", size, numeric=True),
    Column("documents", "documents kept", whole, numeric=True),
    Column("bytes", "text kept", size, numeric=True),
)
LENGTH_COLUMNS = (
    Column("least_characters", "characters, from", whole, numeric=True),
    Column("kept", "documents kept", whole, numeric=True),
    Column("dropped", "documents dropped", whole, numeric=True),
)
CLUSTER_COLUMNS = (
    Column("documents", "documents alike", whole, numeric=True),
    Column("clusters", "clusters", whole, numeric=True),
)
LARGEST_COLUMNS = (
    Column("documents", "documents alike", whole, numeric=True),
    Column("stays", "stays", prose=True),
    Column("others", "some that went", prose=True),
)


def language_figure(card: DatasetCard) -> list[Block]:
    """Returns the languages before and after the filters, or only after them where that is all that is known."""
    if not card.languages:
        return []
    top = max(card.languages, key=lambda language: (card.languages[language].bytes, language))
    share = percent(card.languages[top].bytes / (sum(found.bytes for found in card.languages.values()) or 1))
    if not card.languages_in:
        title = f"{plural(len(card.languages), 'language')}; “{top}” is {share} of the text"
        rows = [(name, float(f.bytes), f"{size(f.bytes)} · {f.documents:,}") for name, f in card.languages.items()]
        caption = "Text bytes and documents by language, after all blocks."
        return [Figure("languages", title, ranking("languages", rows, alt=title), caption)]
    of = len(card.languages_in)
    title = f"{len(card.languages)} of {plural(of, 'language')} kept; “{top}” is {share} of the text"
    caption = "Documents by language: as identified, and what is left after all blocks (documents and bytes of text)."
    return [Figure("languages", title, before_and_after("languages", _language_rows(card), alt=title), caption)]


def _language_rows(card: DatasetCard) -> list[tuple[str, float, float, str]]:
    """The commonest languages as (label, documents in, documents kept, note), the others in one row."""
    rows = []
    for name in sorted(card.languages_in.keys() | card.languages.keys()):
        came, kept = card.languages_in.get(name), card.languages.get(name)
        rows.append((name, came.documents if came else 0, kept.documents if kept else 0, kept.bytes if kept else 0))
    rows.sort(key=lambda row: (-row[1], row[0]))
    shown, rest = rows[:MOST_BARS], rows[MOST_BARS:]
    if rest:
        name = f"{len(rest)} others" if len(rest) > 1 else rest[0][0]
        shown.append((name, sum(row[1] for row in rest), sum(row[2] for row in rest), sum(row[3] for row in rest)))
    return [
        (name, float(came), float(kept), f"{counted(came)} → {counted(kept)}" + (f" · {size(count)}" if kept else ""))
        for name, came, kept, count in shown
    ]


def length_figure(card: DatasetCard) -> list[Block]:
    """Returns how long kept and dropped documents are."""
    total = sum(card.lengths_kept.values())
    if not total:
        return []
    low, high = _quantile(card.lengths_kept, 0.1), _quantile(card.lengths_kept, 0.9)
    title = f"Most kept documents have {low:,} to {2 * high:,} characters"
    caption = (
        "Documents by length; each bin is twice as wide as the one before. Dropped are those that were already text."
    )
    svg = lengths("lengths", card.lengths_kept, card.lengths_dropped, alt=title)
    return [Figure("lengths", title, svg, caption)]


def _quantile(histogram: Mapping[int, int], share: float) -> int:
    """Where the bin begins in which that share of the documents is reached."""
    left = share * sum(histogram.values())
    for begin, count in sorted(histogram.items()):
        left -= count
        if left <= 0:
            return begin
    return max(histogram)


def cluster_figure(card: DatasetCard) -> list[Block]:
    """Returns the clusters of near duplicates by their size."""
    clusters = {documents: count for documents, count in card.duplicate_clusters.items() if documents > 1 and count}
    if not clusters:
        return []
    copies = sum((documents - 1) * count for documents, count in clusters.items())
    title = f"{plural(copies, 'near duplicate')} of {plural(sum(clusters.values()), 'document')}"
    groups: dict[str, list[int]] = {}
    for documents, count in sorted(clusters.items()):
        found = groups.setdefault(_group(documents), [0, 0])
        found[0] += count
        found[1] += (documents - 1) * count
    rows = [(name, float(copied), _cluster_note(count, copied)) for name, (count, copied) in groups.items()]
    caption = f"Duplicates by the size of their cluster; one of each cluster stays. The largest has {max(clusters):,}."
    return [Figure("clusters", title, in_order("clusters", rows, [VERMILION] * len(rows), alt=title), caption)]


def _cluster_note(clusters: int, copies: int) -> str:
    return f"{counted(copies)} in {counted(clusters)} cluster{'' if clusters == 1 else 's'}"


def _group(documents: int) -> str:
    """The group of cluster sizes that one belongs to: 2, 3, 4, 5 to 8, 9 to 16, ..."""
    if documents <= SMALL_CLUSTER:
        return f"{documents} alike"
    if documents > LARGE_CLUSTER:
        return f"over {LARGE_CLUSTER} alike"
    high = 1 << (documents - 1).bit_length()
    return f"{high // 2 + 1}–{high} alike"


def largest_clusters(clusters: Mapping[str, Any]) -> list[Block]:
    """Returns the largest clusters of near duplicates: the document that stays, and some that went for it."""
    rows: list[list[Cell]] = []
    for found in rows_of(clusters.get("examples")):
        names = [str(row.get("url") or row.get("id") or "") for row in rows_of(found.get("documents"))]
        documents = number(found.get("size"))
        rows.append([None if documents is None else int(documents), "".join(names[:1]), ", ".join(names[1:])])
    title = "The largest clusters of near duplicates"
    return [Table("largest_clusters", title, LARGEST_COLUMNS, rows, brief=False, collapsed=True)] if rows else []


def statistics_tables(card: DatasetCard) -> list[Block]:
    """Returns the numbers behind the figures, shown on request."""
    none = LanguageCard(documents=0, bytes=0)
    languages: list[list[Cell]] = []
    for name in card.languages_in.keys() | card.languages.keys():
        came, kept = card.languages_in.get(name), card.languages.get(name, none)
        before: list[Cell] = [came.documents, came.bytes] if came else [None, None]
        languages.append([name, *before, kept.documents, kept.bytes])
    languages.sort(key=lambda row: (-int(row[4] or 0), -int(row[2] or 0), str(row[0])))
    bins = sorted(card.lengths_kept.keys() | card.lengths_dropped.keys())
    by_length: list[list[Cell]] = [[b, card.lengths_kept.get(b, 0), card.lengths_dropped.get(b, 0)] for b in bins]
    clusters: list[list[Cell]] = [[documents, count] for documents, count in sorted(card.duplicate_clusters.items())]
    return [
        Table(name, title, columns, rows, brief=False, collapsed=True)
        for name, title, columns, rows in (
            ("languages", "Languages", LANGUAGE_COLUMNS, languages),
            ("lengths", "Lengths", LENGTH_COLUMNS, by_length),
            ("clusters", "Clusters of near duplicates", CLUSTER_COLUMNS, clusters),
        )
        if rows
    ]
