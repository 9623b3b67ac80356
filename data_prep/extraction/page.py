"""The main text of a page: scan, classify, lay out."""

from __future__ import annotations

from data_prep.extraction.model import Classifier, load
from data_prep.extraction.scan import Page, scan

_CELLS = ("td", "th")


def main_text(html: str, classifier: Classifier | None = None) -> str:
    """Paragraphs, headings and list items a line each, table rows a line with " | " between cells, <pre> as it is."""
    page = scan(html)
    return lay_out(page, (classifier or load()).keeps(page))


def lay_out(page: Page, keep: list[bool]) -> str:
    """The kept blocks as lines, in page order."""
    lines: list[str] = []
    marked = row = cell = -1
    for text, holder, kept in zip(page.texts, page.holders, keep, strict=True):
        if not kept:
            continue
        tag = page.tags[holder]
        if tag in _CELLS and page.parents[holder] == row and lines:
            lines[-1] += (" | " if holder != cell else " ") + text
            cell = holder
            continue
        row, cell = (page.parents[holder], holder) if tag in _CELLS else (-1, -1)
        item = holder if tag == "li" else page.parents[holder]
        if page.tags[item] == "li" and item != marked:
            text, marked = f"- {text}", item
        lines.append(text)
    return "\n".join(lines)
