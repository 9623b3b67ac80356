"""Renders a report as Markdown: the same numbers, short, for a terminal, a pull request or a README."""

import re

from reports.document import Block, Card, Excerpts, Figure, Listing, Paragraph, Report, Section, Table

MOST_EXCERPT_CHARACTERS = 400


def render_markdown(report: Report) -> str:
    """Returns the Markdown text. Text from documents and models stands only in fenced blocks."""
    parts = [f"# {plain(report.title)}", f"{plain(report.subtitle)} · **{report.state}**"]
    for group in report.cards:
        lines = ["| | | |", "|---|---:|---|", *[_card(card) for card in group.cards]]
        parts.append(f"**{plain(group.title)}**\n\n" + "\n".join(lines))
    parts += [_section(section) for section in report.sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: characters with a meaning are escaped."""
    return re.sub(r"([\\`*_\[\]<>#&~])", r"\\\1", text)


def cell(text: str) -> str:
    """Plain text inside a table cell."""
    return re.sub(r"\s+", " ", plain(text)).replace("|", "\\|")


def fenced(text: str) -> str:
    """Text in a fence that is longer than any run of backticks within it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _card(card: Card) -> str:
    before = f"{cell(card.before)} → " if card.before else ""
    return f"| {cell(card.label)} | {before}**{cell(card.value)}** | {cell(card.note)} |"


def _section(section: Section) -> str:
    parts = [f"## {plain(section.title)}", plain(section.lead), *[_block(block) for block in section.blocks]]
    return "\n\n".join(part for part in parts if part)


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block) if block.brief and block.rows else ""
        case Figure():
            return f"![{plain(block.title)}](figures/{block.name}.svg)"
        case Paragraph():
            lines = [plain(line) for line in block.text.splitlines()]
            return "\n".join(f"> {line}" for line in lines) if block.tone else "\n\n".join(lines)
        case Listing():
            return "" if block.collapsed else f"**{plain(block.title)}**\n\n{fenced(block.text)}"
        case Excerpts():
            return "" if block.collapsed else _excerpts(block)


def _table(table: Table) -> str:
    columns = table.heads()
    heads = [cell(column.label) for column in columns]
    rules = ["---:" if column.numeric else "---" for column in columns]
    shown = [
        [("✓ " if (place, c.key) in table.good else "") + cell(text) for c, text in zip(columns, row, strict=True)]
        for place, row in zip(table.picked(), table.shown(), strict=True)
    ]
    lines = [heads, rules, *shown]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"\n\n{plain(table.note)}" if table.note else ""
    return f"**{plain(table.title)}**\n\n{body}{note}"


def _excerpts(block: Excerpts) -> str:
    texts = [fenced((item.prompt + item.text)[:MOST_EXCERPT_CHARACTERS]) for item in block.items]
    return "\n\n".join([f"**{plain(block.title)}**", *texts])
