"""What a report consists of, independent of how it is written: sections of paragraphs, tables, figures and text.

The sections are built once and rendered by reports/html.py and reports/markdown.py; tables also become CSV files.
Every string here is plain text, never markup: escaping is the renderers' business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NOT_MEASURED = "not measured"
HALF_WIDTH_COLUMNS = 4  # a table of up to so many columns needs only half the page

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Card:
    """One headline number. `before`, where given, is shown as "before → value"; `stage` is what brought it."""

    label: str
    value: str
    note: str = ""
    before: str = ""
    stage: str = ""


@dataclass(frozen=True)
class CardGroup:
    """Cards that belong together, under a few words; a group without cards is left out."""

    title: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Column:
    """A table column: `key` heads it in CSV (units in the key), `label` in print; `show` formats a present value.

    A column without a label is only in the CSV. A `prose` column holds sentences, which may wrap.
    """

    key: str
    label: str = ""
    show: Callable[[Cell], str] = str
    numeric: bool = False
    code: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of raw values in the order of the columns. A None is printed as `absent`, and left empty in the CSV.

    `brief` False keeps a long table out of the Markdown report; the CSV file has it in any case. `good` names cells,
    (row, key of the column), that are marked as right. At most `most_rows` rows, spread evenly, are printed.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    absent: str = NOT_MEASURED
    brief: bool = True
    collapsed: bool = False
    good: frozenset[tuple[int, str]] = frozenset()
    most_rows: int | None = None
    kind: str = field(default="table", init=False)

    def heads(self) -> list[Column]:
        """The columns that are printed."""
        return [column for column in self.columns if column.label]

    def picked(self) -> list[int]:
        """Which rows are printed."""
        count = min(len(self.rows), self.most_rows or len(self.rows))
        return [place * len(self.rows) // count for place in range(count)]

    def shown(self) -> list[list[str]]:
        """The picked rows as printed text, one cell for each of `heads()`."""
        return [
            [
                self.absent if cell is None else column.show(cell)
                for column, cell in zip(self.columns, row, strict=True)
                if column.label
            ]
            for row in (self.rows[place] for place in self.picked())
        ]


@dataclass(frozen=True)
class Figure:
    """An SVG figure. `title` states what is seen; `svg` is trusted markup drawn by reports/figures.

    A `wide` one has the page's whole width, and is scrolled rather than made unreadable on a narrow screen.
    """

    name: str
    title: str
    svg: str
    caption: str = ""
    wide: bool = False
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Paragraph:
    """Plain prose. `tone` is "" or "notice" (something the reader must not miss)."""

    text: str
    tone: str = ""
    kind: str = field(default="paragraph", init=False)


@dataclass(frozen=True)
class Listing:
    """Preformatted text: commands, configuration. Collapsed ones are opened by a click, and left out of Markdown."""

    title: str
    text: str
    collapsed: bool = False
    kind: str = field(default="listing", init=False)


@dataclass(frozen=True)
class Excerpt:
    """A piece of somebody's text (a dropped document, a generated sample) with where it is from."""

    source: str
    text: str
    prompt: str = ""


@dataclass(frozen=True)
class Excerpts:
    """Excerpts under one heading; the text comes from the open web or from a model and is never trusted."""

    title: str
    items: Sequence[Excerpt]
    collapsed: bool = False
    kind: str = field(default="excerpts", init=False)


Block = Table | Figure | Paragraph | Listing | Excerpts


@dataclass(frozen=True)
class Section:
    """A titled part of the report; `id` is its anchor."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block]

    def rows_of_blocks(self) -> list[list[Block]]:
        """The blocks, with neighbours of half width put together so that they can stand side by side."""
        rows: list[list[Block]] = []
        for block in self.blocks:
            if rows and _beside(rows[-1][0], block):
                rows[-1].append(block)
            else:
                rows.append([block])
        return rows


def _beside(first: Block, block: Block) -> bool:
    """Two lists of excerpts are there to be compared; other blocks share a row where both are narrow."""
    if isinstance(first, Excerpts) and isinstance(block, Excerpts):
        return not first.collapsed and not block.collapsed
    return _half_width(first) and _half_width(block)


def _half_width(block: Block) -> bool:
    if isinstance(block, Table):
        prose = any(column.prose for column in block.heads())
        return not block.collapsed and not prose and len(block.heads()) <= HALF_WIDTH_COLUMNS
    return isinstance(block, Figure) and not block.wide


@dataclass(frozen=True)
class Report:
    """A whole report, ready to be rendered."""

    title: str
    subtitle: str
    state: str
    cards: Sequence[CardGroup]
    sections: Sequence[Section]

    def tables(self) -> list[Table]:
        """Every table of every section."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    def figures(self) -> list[Figure]:
        """Every figure of every section."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]
