"""Copies of pages, changed in known ways at known rates: what deduplication has to find."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.data.warc import Page

# Share of the pages that come a second time, by what was done to the copy.
RATES = {"exact": 0.05, "boiler": 0.05, "edit1": 0.05, "edit10": 0.03, "trunc": 0.02}
_MIRRORS = 50
_TRUNCATED_TO = 0.8
_SHORTEST_EDITED_WORD = 4


class Truth(NamedTuple):
    """What is known of a page: pages of one cluster are copies of one original (kind `orig`)."""

    url: str
    cluster: str
    kind: str
    sha1: str

    @classmethod
    def of(cls, page: Page, cluster: str, kind: str) -> Truth:
        """The truth of a page."""
        return cls(page.url, cluster, kind, hashlib.sha1(page.payload).hexdigest())


def inject(pages: Iterable[Page], seed: int) -> Iterator[tuple[Page, Truth]]:
    """Every page, and a copy of some; which and how depends on the seed and the page's address alone."""
    for page in pages:
        cluster = hashlib.sha1(page.url.encode()).hexdigest()[:12]
        yield page, Truth.of(page, cluster, "orig")
        chance = random.Random(f"{seed} {page.url}")
        kind = _kind(chance.random())
        if kind is not None:
            copy = Page(_mirror(page.url, chance), _changed(page.payload, kind, chance))
            if copy.payload == page.payload:  # a short page may have lost no word
                kind = "exact"
            yield copy, Truth.of(copy, cluster, kind)


def _kind(drawn: float) -> str | None:
    for kind, rate in RATES.items():
        if drawn < rate:
            return kind
        drawn -= rate
    return None


def _mirror(url: str, chance: random.Random) -> str:
    scheme, rest = url.split("://", 1)
    host, _, path = rest.partition("/")
    return f"{scheme}://mirror{chance.randrange(_MIRRORS)}.{host}/{path}"


def _changed(payload: bytes, kind: str, chance: random.Random) -> bytes:
    if kind == "boiler":
        return _with_footer(payload, chance)
    if kind == "edit1":
        return _edited(payload, 0.01, chance)
    if kind == "edit10":
        return _edited(payload, 0.10, chance)
    if kind == "trunc":
        # Cut between characters: a half character would be a fault of the encoding, which is another subject.
        return payload[: int(len(payload) * _TRUNCATED_TO)].decode("utf-8", "ignore").encode()
    return payload


def _with_footer(payload: bytes, chance: random.Random) -> bytes:
    footer = b"<div class=footer>Mirror %d. All rights reserved. Contact us.</div>" % chance.randrange(10**6)
    head, end, tail = payload.rpartition(b"</body>")
    return head + footer + end + tail if end else payload + footer


def _edited(payload: bytes, probability: float, chance: random.Random) -> bytes:
    """Words outside tags replaced by words that nobody uses."""
    parts = re.split(r"(<[^>]*>)", payload.decode("utf-8", "replace"))
    for place in range(0, len(parts), 2):
        words = parts[place].split(" ")
        parts[place] = " ".join(_word(word, probability, chance) for word in words)
    return "".join(parts).encode()


def _word(word: str, probability: float, chance: random.Random) -> str:
    if len(word) >= _SHORTEST_EDITED_WORD and chance.random() < probability:
        return f"zq{chance.randrange(10_000)}"
    return word
