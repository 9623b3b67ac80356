"""Our quality filters against datatrove's on its own spaCy words: the same decisions, and how much faster.

`python -m benchmarks.data.filters [--texts JSONL ...] [--limit N]` sends every document through both rows of filters,
filter by filter whatever the verdict, each side first in turn. Without --texts the documents are pages of the embedded
sample, extracted by resiliparse, and the texts under --data where they lie. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from data_prep.blocks.c4 import C4
from data_prep.blocks.config import C4Config, FineWebConfig, GopherQualityConfig, GopherRepetitionConfig
from data_prep.blocks.fineweb import FineWeb
from data_prep.blocks.gopher_quality import GopherQuality, stop_words
from data_prep.blocks.gopher_repetition import GopherRepetition
from data_prep.blocks.words import check_languages
from kit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data_prep" / "sample" / "docs.warc.gz"
_DOCUMENTS = 150  # of every source, spread evenly
_CHARACTERS = 20_000  # of an article of wiki_demo.txt, whose lines are long


class Verdict(NamedTuple):
    """What a filter said: why it dropped the page, else None, and the text that it left."""

    reason: str | None
    text: str


def stock_filters(language: str) -> dict[str, BaseFilter]:
    """datatrove's filters with the papers' thresholds, on spaCy's words, with the language's stop words."""
    words = sorted(stop_words().get(language, ()))
    return {
        "gopher_repetition": GopherRepetitionFilter(language=language),
        "gopher_quality": GopherQualityFilter(min_stop_words=2 if words else 0, stop_words=words, language=language),
        "c4": C4QualityFilter(filter_no_terminal_punct=False, language=language),
        "fineweb": FineWebQualityFilter(language=language),
    }


def our_filters() -> dict[str, BaseFilter]:
    """Ours with their defaults."""
    blocks: list[BaseFilter] = [
        GopherRepetition(GopherRepetitionConfig()),
        GopherQuality(GopherQualityConfig()),
        C4(C4Config()),
        FineWeb(FineWebConfig()),
    ]
    return {block.name: block for block in blocks}


def measure(documents: Iterable[Document]) -> dict[str, Any]:
    """Send documents through both rows.

    Returns:
        By filter: the share of pages with the same decision; with the same reason and text too; and datatrove's CPU
        time over ours, under `all` for the whole row. Both start with their rules loaded and no word seen. Pages of
        languages that this machine has no splitter for are left out.
    """
    stock, ours = cache(stock_filters), our_filters()
    tally, seconds = Counter[str](), Counter[str]()
    loaded: set[str] = set()
    for number, document in enumerate(documents):
        language = document.metadata.get("language", "en")
        if not _splittable(language):
            tally["left out"] += 1
            continue
        if language not in loaded:
            loaded.add(language)
            for row in (ours, stock(language)):
                _judge(row, _copy(document, "Load the rules. " * 20), Counter(), "")
        sides = [("ours", ours), ("stock", stock(language))]
        verdicts = {}
        for side, row in sides if number % 2 else reversed(sides):
            verdicts[side] = _judge(row, _copy(document, document.text), seconds, side)
        for name, mine in verdicts["ours"].items():
            other = verdicts["stock"][name]
            tally[f"{name} decision"] += (mine.reason is None) == (other.reason is None)
            tally[f"{name} all"] += mine == other
        tally["documents"] += 1
    for side in ("ours", "stock"):
        seconds[f"{side} all"] = sum(seconds[f"{side} {name}"] for name in ours)
    count = max(1, tally["documents"])
    return {
        "documents": tally["documents"],
        "left_out": tally["left out"],
        "filter_agreement": {name: round(tally[f"{name} decision"] / count, 5) for name in ours},
        "reason_agreement": {name: round(tally[f"{name} all"] / count, 5) for name in ours},
        "speed_ratio": {
            name: round(seconds[f"stock {name}"] / max(seconds[f"ours {name}"], 1e-9), 1) for name in [*ours, "all"]
        },
        "milliseconds_a_document": {
            side: round(1000 * seconds[f"{side} all"] / count, 3) for side in ("ours", "stock")
        },
    }


@cache
def _splittable(language: str) -> bool:
    try:
        check_languages([language])
    except UserError:
        return False
    return True


def _copy(document: Document, text: str) -> Document:
    return Document(text=text, id=document.id, metadata=dict(document.metadata))


def _judge(row: dict[str, BaseFilter], document: Document, seconds: Counter[str], side: str) -> dict[str, Verdict]:
    verdicts = {}
    for name, block in row.items():
        began = time.process_time()
        answer = block.filter(document)
        seconds[f"{side} {name}"] += time.process_time() - began  # type: ignore[assignment]
        verdicts[name] = Verdict(None if answer is True else answer[1], document.text)
    return verdicts


def default_documents(data: Path, limit: int) -> Iterator[Document]:
    """Pages of the sample and, where they lie under `data`, web texts and articles."""
    yield from _spread(list(_sample_pages()), limit)
    web, articles = data / "text" / "openwebtext_1000.jsonl.xz", data / "text" / "wiki_demo.txt.xz"
    if web.exists():
        yield from _spread(list(read_jsonl(web)), limit)
    if articles.exists():
        with lzma.open(articles, "rt", encoding="utf-8") as file:
            texts = [line.strip() for line in file if line.strip()]
        yield from _spread([Document(text=text[:_CHARACTERS], id="wiki") for text in texts], limit)


def read_jsonl(path: Path) -> Iterator[Document]:
    """Objects with a `text` and perhaps a `language`, by itself or under `metadata`; plain or xz."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            language = row.get("language") or row.get("metadata", {}).get("language") or "en"
            yield Document(text=row["text"], id=f"{path.name}:{number}", metadata={"language": language})


def _sample_pages() -> Iterator[Document]:
    with SAMPLE.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=False):
            head, _, body = record.reader.read().partition(b"\r\n\r\n")
            found = re.search(rb"(?mi)^Content-Language: (\w\w)", head)
            text = extract_plain_text(body.decode("utf-8", "replace"), main_content=True, alt_texts=False)
            if text.strip():
                language = found.group(1).decode() if found else "en"
                yield Document(text=text.strip(), id=record.record_id, metadata={"language": language})


def _spread(documents: list[Document], limit: int) -> list[Document]:
    return documents[:: -(-len(documents) // limit)] if len(documents) > limit else documents


def main() -> None:
    parser = argparse.ArgumentParser(description="Our quality filters against datatrove's.")
    parser.add_argument("--texts", type=Path, nargs="+", help="JSONL files, plain or xz, instead of the default texts")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="a folder with text/")
    parser.add_argument("--limit", type=int, default=_DOCUMENTS, help="documents of every source")
    arguments = parser.parse_args()
    documents: Iterable[Document] = default_documents(arguments.data, arguments.limit)
    if arguments.texts:
        rows = (_spread(list(read_jsonl(path)), arguments.limit) for path in arguments.texts)
        documents = chain.from_iterable(rows)
    print(json.dumps(measure(documents)))


if __name__ == "__main__":
    main()
