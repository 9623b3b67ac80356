"""Lines or paragraphs that came before, anywhere in the input, cut out of the texts.

Raffel et al. (2020), section 2.2; Wenzek et al. (2020), section 3.1. Three parts of the pipeline, as in exact.py:
`lines_signatures` writes a hash of every line, `lines_find` lists those that repeat an earlier one, `lines_filter`
cuts them out and drops pages of which too little is left. Lines are compared without case, white space, digits and
punctuation.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.blocks.config import LinesConfig
from data_prep.dedup.identity import (
    SIGNATURES,
    bytes_key,
    check_count,
    number,
    place,
    task_file,
    write_count,
    write_repeated,
)
from data_prep.dedup.runs import RunWriter, key_range, merged, run_files, writing_runs
from data_prep.dedup.words import word_hashes
from data_prep.ledger import REASON

CUT = "cut_lines"  # in the metadata: how many lines or paragraphs were cut

_AT_ONCE = 1 << 16
_SEPARATORS = {"line": re.compile(r"(\n)"), "paragraph": re.compile(r"(\n[^\S\n]*(?:\n\s*)+)")}
_NOT_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
# The marks of Latin-1, general punctuation, and CJK punctuation, as UTF-8.
_MARKS = re.compile(rb"\xc2[\x80-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf]|\xe2[\x80\x81][\x80-\xbf]|\xe3\x80[\x80-\xbf]")


def lines_signatures(config: LinesConfig, folder: Path) -> WriteLineKeys:
    """Step 1: the hash of every line (or paragraph) that is long enough."""
    return WriteLineKeys(config, folder / SIGNATURES)


def lines_find(config: LinesConfig, folder: Path) -> FindRepeatedLines:
    """Step 2, any number of tasks: which lines repeat an earlier one."""
    return FindRepeatedLines(folder / SIGNATURES, folder / "duplicates")


def lines_filter(config: LinesConfig, folder: Path) -> CutLines:
    """Step 3: cuts them out; drops pages with too little left as too_short_after_line_dedup."""
    return CutLines(config, folder)


def split_units(text: str, config: LinesConfig) -> list[str]:
    """Units and separators in turn, beginning and ending with a unit."""
    return _SEPARATORS[config.unit].split(text)


def unit_key(unit: str, min_characters: int) -> int | None:
    """Equal for units with the same letters in the same order; None where they are fewer than `min_characters`."""
    letters = unit.lower().encode("utf-8", "surrogatepass").translate(None, _NOT_LETTERS)
    count = len(letters)
    if not letters.isascii():
        letters = _MARKS.sub(b"", letters)
        count = len(letters.decode("utf-8", "replace"))
    if not letters or count < min_characters:
        return None
    return bytes_key(letters)


class WriteLineKeys(PipelineStep):
    """Passes documents through and writes (key, document, place of the unit in it) runs."""

    type = "DEDUP"
    name = "lines_signatures"

    def __init__(self, config: LinesConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents; the file gets its name when all are written."""
        with writing_runs(task_file(self.folder, rank), ("u8", "u8", "u4")) as writer:
            columns = array("Q"), array("Q"), array("L")
            position = -1
            for position, document in enumerate(data):
                for unit, key in _unit_keys(document.text, self.config):
                    columns[0].append(key)
                    columns[1].append(number(rank, position))
                    columns[2].append(unit)
                if len(columns[0]) >= _AT_ONCE:
                    _flush(writer, columns)
                    columns = array("Q"), array("Q"), array("L")
                yield document
            _flush(writer, columns)
        write_count(self.folder, rank, position + 1)


class FindRepeatedLines(PipelineStep):
    """Lists (document, place) of units whose key came before; every task takes a share of the keys."""

    type = "DEDUP"
    name = "lines_find"

    def __init__(self, folder: Path, output: Path) -> None:
        super().__init__()
        self.folder, self.output = folder, output

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the task's runs."""
        share = merged(run_files(self.folder), *key_range(rank, world_size))
        write_repeated(share, task_file(self.output, rank), ("u8", "u4"))


class CutLines(PipelineStep):
    """Cuts the listed units out of the texts."""

    type = "DEDUP"
    name = "lines_filter"

    def __init__(self, config: LinesConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that are left, those that nothing was cut from as they came."""
        cuts = groupby(self._listed(rank), key=lambda listed: listed[0])
        following, units = next(cuts, (None, iter(())))
        position = -1
        for position, document in enumerate(data):
            if position == following:
                self._cut(document, {unit for _, unit in units})
                following, units = next(cuts, (None, iter(())))
                if len(word_hashes(document.text)) < self.config.min_words_left:
                    document.metadata[REASON] = "too_short_after_line_dedup"
                    continue
            yield document
        check_count(self.folder / SIGNATURES, rank, position + 1)

    def _listed(self, rank: int) -> Iterator[tuple[int, int]]:
        for documents, units in merged(run_files(self.folder / "duplicates"), number(rank, 0), number(rank + 1, 0)):
            for document, unit in zip(documents.tolist(), units.tolist(), strict=True):
                yield place(document)[1], unit

    def _cut(self, document: Document, gone: set[int]) -> None:
        parts = split_units(document.text, self.config)
        pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
        document.text = "".join(text + end for unit, (text, end) in enumerate(pairs) if unit not in gone).rstrip("\n")
        document.metadata[CUT] = len(gone)


def _unit_keys(text: str, config: LinesConfig) -> Iterator[tuple[int, int]]:
    """(place, key) of the units that are long enough."""
    units = text.split("\n") if config.unit == "line" else split_units(text, config)[::2]
    for place_in_text, unit in enumerate(units):
        if len(unit) >= config.min_characters:
            key = unit_key(unit, config.min_characters)
            if key is not None:
                yield place_in_text, key


def _flush(writer: RunWriter, columns: tuple[array[int], array[int], array[int]]) -> None:
    kinds = (np.uint64, np.uint64, np.uint32)
    writer.append(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))
