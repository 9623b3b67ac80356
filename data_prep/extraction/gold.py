"""Pages with a gold standard: folders of NAME.warc.xz beside NAME.gold.jsonl.xz, and how an extraction is scored.

A line of the gold file names its record (`warc_record_id`) and has one of `gold` (text), `gold_html` (the main part
as HTML) or the segments `must_have` and `must_not`.
"""

from __future__ import annotations

import codecs
import io
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_prep.blocks.http import decode_text
from data_prep.extraction.labels import tokens
from data_prep.extraction.scan import scan

_CHARSET = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w-]+)", re.I)
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}  # as browsers read them
_DECLARED_WITHIN = 4096


@dataclass(frozen=True)
class GoldPage:
    """A page and what should come out: a text, or segments that must and must not be in it."""

    id: str
    url: str
    html: str
    gold: str | None
    must_have: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()


def gold_sets(folder: Path) -> list[str]:
    """Names of the sets in a folder."""
    return sorted(path.name.removesuffix(".gold.jsonl.xz") for path in folder.glob("*.gold.jsonl.xz"))


def read_gold(folder: Path, name: str) -> Iterator[GoldPage]:
    """The pages of a set; gold HTML becomes text by one renderer, our scanner, whatever extractor is measured."""
    with lzma.open(folder / f"{name}.gold.jsonl.xz", "rt", encoding="utf-8") as lines:
        rows = {row["warc_record_id"]: row for row in map(json.loads, lines)}
    with lzma.open(folder / f"{name}.warc.xz") as stream:
        archive = io.BytesIO(stream.read())
    for record in ArchiveIterator(archive, record_types=WarcRecordType.response):
        row = rows.get(record.headers["WARC-Record-ID"])
        if row is None:
            continue
        gold = row.get("gold")
        if gold is None and "gold_html" in row:
            gold = "\n".join(scan(row["gold_html"]).texts)
        segments = {key: tuple(row.get(key, ())) for key in ("must_have", "must_not")}
        yield GoldPage(row["id"], row.get("url", ""), decode(record.reader.read()), gold, **segments)


def decode(body: bytes) -> str:
    """UTF-8 if it is that, else what the page declares, else by detection: gold pages come without HTTP charsets."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        declared = _CHARSET.search(body[:_DECLARED_WITHIN])
    try:
        name = codecs.lookup(declared.group(1).decode()).name if declared else ""
    except LookupError:
        name = ""
    return body.decode(_WIDER.get(name, name), "replace") if name else decode_text(body, None)


def token_f1(text: str, gold: str) -> float:
    """F1 of the bags of tokens; both empty is 1."""
    mine, wanted = Counter(tokens(text)), Counter(tokens(gold))
    if not mine or not wanted:
        return float(mine == wanted)
    shared = (mine & wanted).total()
    return 2 * shared / (mine.total() + wanted.total())


def segment_f1(pages: list[GoldPage], texts: list[str]) -> float:
    """F1 over all segments of all pages: a must-have that is there, one that is not, a must-not that is there."""
    found = missed = wrong = 0
    for page, text in zip(pages, texts, strict=True):
        flat = " ".join(text.split())
        there = sum(" ".join(segment.split()) in flat for segment in page.must_have)
        found, missed = found + there, missed + len(page.must_have) - there
        wrong += sum(" ".join(segment.split()) in flat for segment in page.must_not)
    return 2 * found / max(2 * found + missed + wrong, 1)


def set_f1(pages: list[GoldPage], texts: list[str]) -> float:
    """Mean token F1 of a set with gold texts, else F1 of its segments."""
    pairs = [(text, page.gold) for page, text in zip(pages, texts, strict=True) if page.gold is not None]
    if not pairs:
        return segment_f1(pages, texts)
    return sum(token_f1(text, gold) for text, gold in pairs) / len(pairs)
