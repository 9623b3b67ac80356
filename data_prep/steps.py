"""The row of steps from crawl records to the final text: which blocks, in which order, with what between them.

Deduplication needs to see every task's signatures, so it cuts the row into steps; between two of them the text lies on
the disk. Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datatrove.pipeline.base import PipelineStep

from data_prep.blocks import exact, lines, minhash
from data_prep.blocks.bad_words import BadWords
from data_prep.blocks.c4 import C4
from data_prep.blocks.config import DedupConfig, FiltersConfig
from data_prep.blocks.decontaminate import Decontaminate
from data_prep.blocks.extract import ExtractText
from data_prep.blocks.fineweb import FineWeb
from data_prep.blocks.gopher_quality import GopherQuality
from data_prep.blocks.gopher_repetition import GopherRepetition
from data_prep.blocks.language import LanguageFilter
from data_prep.blocks.mix import Mix
from data_prep.blocks.perplexity import Perplexity
from data_prep.blocks.pii import MaskPii
from data_prep.blocks.read import DecodeRecords, RecordReader
from data_prep.blocks.store import LoadDocuments, StoreDocuments
from data_prep.blocks.url_filter import UrlFilter
from data_prep.config import DataPrepConfig
from data_prep.inputs import CrawlFile
from data_prep.ledger import Metered
from data_prep.statistics import DroppedStatistics, KeptStatistics
from data_prep.tokenize import EncodeDocuments

_AFTER_TEXT = 89  # the tokenizer's place in the ledger: behind every block of the text steps, whichever are on


class Step(NamedTuple):
    """Blocks that run together over a number of tasks."""

    name: str
    tasks: int
    blocks: list[PipelineStep]


class Places(NamedTuple):
    """Where a run keeps what lies between the steps."""

    work: Path

    @property
    def ledger(self) -> Path:
        """Counts of every block and task."""
        return self.work / "ledger"

    @property
    def statistics(self) -> Path:
        """Languages, lengths, sources and samples of every task."""
        return self.work / "statistics"

    @property
    def clock(self) -> Path:
        """Processor time of every step and task."""
        return self.work / "clock"

    @property
    def clean(self) -> Path:
        """Texts after the filters."""
        return self.work / "clean"

    @property
    def final(self) -> Path:
        """Texts without near duplicates: what is tokenised."""
        return self.work / "final"

    @property
    def near(self) -> Path:
        """Signatures, pairs and clusters of near duplicates."""
        return self.work / "minhash"

    @property
    def encoded(self) -> Path:
        """Token shards of every task."""
        return self.work / "encoded"


class _Meter:
    """Wraps blocks in order, numbering them."""

    def __init__(self, places: Places, position: int = 0) -> None:
        self.places, self.position = places, position
        self.dropped = DroppedStatistics(places.statistics)

    def __call__(self, block: PipelineStep, name: str, default_reason: str = "dropped") -> Metered:
        self.position += 1
        return Metered(block, name, self.places.ledger, self.position, default_reason, self.dropped)


def text_steps(config: DataPrepConfig, files: list[CrawlFile], places: Places) -> list[Step]:
    """The steps from crawl records to the final text, in order.

    Args:
        config: the recipe.
        files: the inputs.
        places: where everything of the run lies.
    """
    meter = _Meter(places)
    steps = [Step("clean", config.tasks, _clean_blocks(config, files, meter))]
    texts = places.clean
    for part in _exact_duplicates(config.dedup, places):
        steps[-1].blocks.extend([part.signatures, StoreDocuments(texts)])
        removed = meter(part.remove, part.name, part.reason)
        steps.append(Step(f"find_{part.name}", config.tasks, [part.find]))
        steps.append(Step(part.name, config.tasks, [LoadDocuments(texts), removed]))
        texts = places.work / part.name
    if settings := config.dedup.minhash:
        steps[-1].blocks.append(minhash.minhash_signatures(settings, places.near))
    steps[-1].blocks.append(StoreDocuments(texts))
    last = [LoadDocuments(texts), *_last_blocks(config, places, meter), StoreDocuments(places.final)]
    return [*steps, *_near_steps(config, places), Step("final", config.tasks, last)]


def _near_steps(config: DataPrepConfig, places: Places) -> list[Step]:
    """Between the signatures of all documents and the drop of those that are too alike."""
    if not (settings := config.dedup.minhash):
        return []
    return [
        Step("compare", config.tasks, [minhash.minhash_buckets(settings, places.near)]),
        Step("cluster", 1, [minhash.minhash_cluster(settings, places.near)]),
    ]


def _last_blocks(config: DataPrepConfig, places: Places, meter: _Meter) -> list[PipelineStep]:
    """What runs once near duplicates are known."""
    blocks: list[PipelineStep] = []
    if config.dedup.minhash:
        blocks.append(meter(minhash.minhash_filter(config.dedup.minhash, places.near), "near_dedup"))
    if config.decontaminate:
        blocks.append(meter(Decontaminate(config.decontaminate), "decontaminate"))
    if config.mix:
        blocks.append(meter(Mix(config.mix), "mix"))
    return blocks


def tokenize_step(config: DataPrepConfig, tokenizer: Path, fast: bool, places: Places) -> Step:
    """The last step: token shards of every task, and what the dataset consists of."""
    encode = _Meter(places, _AFTER_TEXT)(EncodeDocuments(tokenizer, places.encoded, fast), "tokenize")
    kept = KeptStatistics(places.statistics, places.encoded)
    return Step("tokenize", config.tasks, [LoadDocuments(places.final), encode, kept])


class _Duplicates(NamedTuple):
    """The three parts of one kind of exact deduplication."""

    name: str
    reason: str
    signatures: PipelineStep
    find: PipelineStep
    remove: PipelineStep


def _exact_duplicates(config: DedupConfig, places: Places) -> list[_Duplicates]:
    """The kinds that are on, in order; each reads what the one before left."""
    kinds = []
    if config.url:
        folder = places.work / "url"
        address = exact.url_signatures(folder), exact.url_find(folder), exact.url_filter(folder)
        kinds.append(_Duplicates("url_dedup", "url_duplicate", *address))
    if config.exact:
        folder = places.work / "exact"
        text = exact.exact_signatures(folder), exact.exact_find(folder), exact.exact_filter(folder)
        kinds.append(_Duplicates("exact_dedup", "exact_duplicate", *text))
    if settings := config.lines:
        folder = places.work / "lines"
        signatures, find = lines.lines_signatures(settings, folder), lines.lines_find(settings, folder)
        cut = lines.lines_filter(settings, folder)
        kinds.append(_Duplicates("line_dedup", "too_short_after_line_dedup", signatures, find, cut))
    return kinds


def _clean_blocks(config: DataPrepConfig, files: list[CrawlFile], meter: _Meter) -> list[PipelineStep]:
    address = [meter(UrlFilter(config.url_filter), "url_filter")] if config.url_filter else []
    return [
        RecordReader(files, config.input.limit, config.read),
        meter(DecodeRecords(config.read), "read"),
        *address,
        meter(ExtractText(config.extract), "extract", "no_text"),
        meter(LanguageFilter(config.languages), "language"),
        *(meter(block, block.name) for block in quality_filters(config.filters)),
        meter(MaskPii(config.pii), "pii"),
    ]


def quality_filters(config: FiltersConfig) -> list[PipelineStep]:
    """The filters that are on, in their order."""
    built = []
    for settings, block in _FILTERS:
        if (chosen := getattr(config, settings)) is not None:
            built.append(block(chosen))
    return built


_FILTERS: list[tuple[str, Callable[..., PipelineStep]]] = [
    ("gopher_repetition", GopherRepetition),
    ("gopher_quality", GopherQuality),
    ("c4", C4),
    ("fineweb", FineWeb),
    ("bad_words", BadWords),
    ("perplexity", Perplexity),
]
