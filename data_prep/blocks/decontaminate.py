"""Pages that share word n-grams with evaluation sets are dropped (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import DecontaminateConfig
from data_prep.dedup.ngram_index import NgramIndex
from data_prep.dedup.words import WordHashes, word_hashes
from data_prep.ledger import ReasonKeeper
from kit.errors import UserError
from kit.files import require_file

OVERLAPS = "overlaps"  # in the metadata: how many different n-grams the page shares with evaluation sets
OVERLAP_SETS = "overlap_sets"  # and the names of their files

_OPEN: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_EXPECTED = "a file of evaluation text: .txt, .jsonl, .json, .csv or .tsv, plain or compressed with gzip, xz or bzip2"


class Decontaminate(BaseFilter):
    """Drops pages with more than `max_overlaps` n-grams of the evaluation sets, as contaminated.

    Pages that share any keep a note of it in their metadata (`overlaps`, `overlap_sets`).

    Args:
        config: the evaluation files and what counts as an overlap.

    Raises:
        UserError: a file is missing, cannot be read, or holds no text that is long enough.
    """

    name = "decontaminate"

    def __init__(self, config: DecontaminateConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.config = config
        self.sets = [Path(path).name for path in config.paths]
        items = ((words, i) for i, path in enumerate(config.paths) for words in _items(path, config))
        self.index = NgramIndex(items, config.ngram, config.min_words)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the page stays."""
        overlap = self.index.overlap(word_hashes(doc.text))
        if overlap.ngrams:
            doc.metadata[OVERLAPS] = overlap.ngrams
            doc.metadata[OVERLAP_SETS] = [self.sets[i] for i in overlap.sources]
        return (False, "contaminated") if overlap.ngrams > self.config.max_overlaps else True


def evaluation_texts(path: Path) -> Iterator[str]:
    """Every string of a file; of plain text, its paragraphs.

    Raises:
        UserError: the file is missing, damaged, or of an unknown kind.
    """
    require_file(path, _EXPECTED)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    opener = _OPEN.get(suffixes[-1]) if suffixes else None
    kind = suffixes[-2] if opener and len(suffixes) > 1 else suffixes[-1] if suffixes else ""
    read = _READERS.get(kind)
    if read is None:
        raise UserError(f"{path}", expected=_EXPECTED, action="convert the file, or take it out of decontaminate.paths")
    try:
        with (opener or open)(path, "rt", encoding="utf-8") as file:
            yield from read(file)
    except (OSError, EOFError, ValueError, lzma.LZMAError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged: {error}", expected=_EXPECTED, action="get the file again, or take it out of the recipe"
        ) from error


def _items(path: str, config: DecontaminateConfig) -> Iterator[WordHashes]:
    enough = False
    for text in evaluation_texts(Path(path)):
        words = word_hashes(text)
        enough = enough or len(words) >= config.min_words
        yield words
    if not enough:
        raise UserError(
            f"{path}: no text of {config.min_words} words or more (decontaminate.min_words)",
            expected="evaluation text",
            action="check the file, take it out of decontaminate.paths, or set a smaller decontaminate.min_words",
        )


def _paragraphs(file: IO[str]) -> Iterator[str]:
    lines: list[str] = []
    for line in file:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines)
            lines = []
    yield "".join(lines)


def _json_lines(file: IO[str]) -> Iterator[str]:
    for count, line in enumerate(file, 1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {count} is not JSON ({error})") from error


def _cells(delimiter: str) -> Callable[[IO[str]], Iterator[str]]:
    def read(file: IO[str]) -> Iterator[str]:
        for row in csv.reader(file, delimiter=delimiter):
            yield from row

    return read


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


_READERS: dict[str, Callable[[IO[str]], Iterator[str]]] = {
    ".txt": _paragraphs,
    ".jsonl": _json_lines,
    ".json": lambda file: _strings(json.load(file)),
    ".csv": _cells(","),
    ".tsv": _cells("\t"),
}
