"""One pass over a page's tags: blocks of text, and where in the page each of them stands.

No tree is built by a parser written in C: a page can neither crash the process nor nest too deep, and every pattern
below is linear (possessive, and what is searched always ends with ">").
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.extraction.elements import BLOCK, CLOSES, INLINE, KIND, LINK, PARAGRAPH_ONLY, TAG_BITS, hint_bits

# Comments, and elements that hold no text; one that is never closed takes the rest of the page, as in a browser.
# A short <noscript> is a picture or a complaint; a long one can hold the whole page (Discourse).
_DEAD = re.compile(
    r"<(?:!--(?:.*?-->|.*+)"
    r"|noscript\b[^>]*+>[^<]{0,300}+(?:<(?!/?noscript)[^<]{0,300}+){0,12}+</noscript[^>]*+>"
    r"|(script|style|svg|template|iframe|textarea|title|math)\b[^>]*+>[^<]*+(?:<(?!/\1\b)[^<]*+)*+(?:</[^>]*+>)?+)",
    re.S | re.I,
)
# Closing mark, name, attributes, and the text up to the next tag; a ">" in a quoted attribute is no end of the tag.
_TAG = re.compile(
    r"<(/?+)([a-zA-Z][a-zA-Z0-9:-]*+)"
    r"([^>=]*+(?:=\s*+(?:\"[^\"]*+\"|'[^']*+')?+[^>=]*+)*+)>"
    r"([^<]*+(?:<(?![a-zA-Z/!?])[^<]*+)*+)"
)
# The rest of a page beyond these is cut off, so that time and memory are bounded whatever comes.
_MAX_CHARACTERS = 16 * 2**20
_MAX_ELEMENTS = 400_000
_MAX_BLOCKS = 40_000
_MAX_CLIMB = 40  # an end tag looks for its start tag among so many open elements


Integers = NDArray[np.int64]


@dataclass
class Page:
    """Blocks in page order, and the elements they stand in; element 0 is the page.

    Attributes:
        texts: Text of each block, white space folded except in <pre>.
        links: Characters of the block inside links.
        holders: Element of each block.
        parents, tags, bits, inherited, starts: Of each element; `inherited` are its bits and those of all around it,
            `starts` the number of blocks before it.
    """

    texts: list[str] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    holders: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [0])
    tags: list[str] = field(default_factory=lambda: [""])
    bits: list[int] = field(default_factory=lambda: [0])
    inherited: list[int] = field(default_factory=lambda: [0])

    starts: list[int] = field(default_factory=lambda: [0])

    def spans(self) -> tuple[Integers, Integers]:
        """Of each element the blocks inside it, at any depth: first, and one past the last; they have no gaps."""
        ends = np.array(self.starts)
        ends[self.holders] = np.arange(1, len(self.holders) + 1)  # of equal places the last one counts
        last, parents = ends.tolist(), self.parents
        for element in range(len(last) - 1, 0, -1):
            above = parents[element]
            if last[element] > last[above]:
                last[above] = last[element]
        return np.array(self.starts), np.array(last)


def scan(source: str) -> Page:
    """The blocks of a page; time and memory are linear in its length, of which at most 16 Mi characters are read."""
    source = _DEAD.sub("", f"<br>{source[:_MAX_CHARACTERS]}<br>")
    page = Page()
    parents, tags, texts = page.parents, page.tags, page.texts
    parts: list[str] = []
    hints: dict[str, int] = {}
    here = linked = 0
    in_link = False
    kinds = KIND.get
    for end, name, attributes, text in map(re.Match.groups, _TAG.finditer(source)):
        kind = kinds(name, -1)
        if kind < 0:
            name = name.lower()
            kind = kinds(name, BLOCK)
        if kind == INLINE:
            pass  # only its text counts
        elif kind == LINK:
            in_link = not end and ("href" in attributes or "HREF" in attributes)
        else:
            if parts:
                _flush(page, parts, linked, here)
                parts.clear()
                if len(texts) > _MAX_BLOCKS:
                    break
            linked = 0
            if kind == BLOCK:
                if not end:
                    if len(parents) > _MAX_ELEMENTS:
                        break
                    here = _open(page, here, name, attributes, hints)
                elif tags[here] == name:
                    here = parents[here]
                else:
                    here = _close(parents, tags, here, name)
        if text and (parts or in_link or not text.isspace() or tags[here] == "pre"):
            parts.append(text)
            if in_link:
                linked += len(text)
    if parts:
        _flush(page, parts, linked, here)
    return page


def _flush(page: Page, parts: list[str], linked: int, here: int) -> None:
    text = "".join(parts)
    text = text.strip("\r\n").rstrip() if page.tags[here] == "pre" else " ".join(text.split())
    if not text:
        return
    if "&" in text:
        text = html.unescape(text)
        if not text.strip():
            return
    page.texts.append(text)
    page.links.append(linked)
    page.holders.append(here)


def _open(page: Page, here: int, name: str, attributes: str, hints: dict[str, int]) -> int:
    """Add an element inside the innermost one that it does not end; returns its number."""
    parents, tags, inherited = page.parents, page.tags, page.inherited
    ended = CLOSES.get(name, PARAGRAPH_ONLY)
    while tags[here] in ended:
        here = parents[here]
    bits = TAG_BITS.get(name, 0)
    if attributes:
        known = hints.get(attributes)
        if known is None:
            known = hints[attributes] = hint_bits(attributes)
        bits |= known
    number = len(parents)
    parents.append(here)
    tags.append(name)
    page.bits.append(bits)
    inherited.append(inherited[here] | bits)
    page.starts.append(len(page.texts))
    return number


def _close(parents: list[int], tags: list[str], here: int, name: str) -> int:
    """The element around the nearest open one of this name; an end tag without a start tag changes nothing."""
    around = here
    for _ in range(_MAX_CLIMB):
        if not around:
            return here
        if tags[around] == name:
            return parents[around]
        around = parents[around]
    return here
