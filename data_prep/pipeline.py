"""The pipeline: a short row of steps, each run task by task; what is finished is never done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datatrove.pipeline.base import PipelineStep
from sentencepiece import SentencePieceProcessor

from data_prep import huggingface
from data_prep.blocks import dedup
from data_prep.blocks import filter as filters
from data_prep.blocks.config import FiltersConfig
from data_prep.blocks.extract import ExtractText
from data_prep.blocks.language import LanguageFilter
from data_prep.blocks.pii import mask_pii
from data_prep.blocks.read import DecodeRecords, RecordReader
from data_prep.blocks.store import LoadDocuments, StoreDocuments, read_all_stored
from data_prep.card import TOKENIZER_FILE, build_card, check_survivors
from data_prep.config import DataPrepConfig
from data_prep.executor import LocalExecutor
from data_prep.inputs import CrawlFile, find_inputs
from data_prep.ledger import Metered, read_ledger
from data_prep.tokenize import EncodeDocuments, join_splits
from data_prep.train_tokenizer import sample_lines, train
from kit.files import atomic_write, disk_full_as_failure
from kit.hardware import available_cores
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.tokens.card import CARD_NAME, write_card

_CHECKED_PER_LANGUAGE = 25


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
    def clean(self) -> Path:
        """Texts after the filters."""
        return self.work / "clean"

    @property
    def unique(self) -> Path:
        """Texts without exact duplicates."""
        return self.work / "unique"

    @property
    def final(self) -> Path:
        """Texts without near duplicates: what is tokenised."""
        return self.work / "final"

    @property
    def encoded(self) -> Path:
        """Token shards of every task."""
        return self.work / "encoded"


def run(config: DataPrepConfig, run: RunDirectory) -> None:
    """Prepare a dataset: everything under RUN_DIR/artifacts, the card last.

    Raises:
        UserError: bad input, or nothing survives.
        RunFailure: a full disk, a killed worker, a tokenizer that cannot be converted exactly.
    """
    files, skipped = find_inputs(config.input.paths)
    if _quality_filters(config.filters, []):
        filters.check_languages(config.languages.keep)
    for file in skipped:
        append_event(run, "skipped_file", path=file.given, reason=file.reason)
    places = Places(run.path / "work")
    with disk_full_as_failure(places.work):
        for step in text_steps(config, files, places):
            _execute(step, config, run, places)
            if step.name == "clean":
                check_survivors(read_ledger(places.ledger))
        _tokenizer(config, run, places)
        _execute(_tokenize_step(config, run, places), config, run, places)
        _finish(config, run, places, files)


def text_steps(config: DataPrepConfig, files: list[CrawlFile], places: Places) -> list[Step]:
    """The steps from crawl records to the final text.

    Deduplication needs to see every task's signatures, so it cuts the row into steps; between two of them the text
    lies on the disk.
    """
    exact, near = places.work / "exact", places.work / "minhash"
    meter = _Meter(places.ledger)
    steps = [
        Step("clean", config.tasks, [*_clean_blocks(config, files, meter), StoreDocuments(places.clean)]),
        Step("unique", config.tasks, [LoadDocuments(places.clean)]),
        Step("final", config.tasks, [LoadDocuments(places.unique)]),
    ]
    clean, unique, final = steps
    find: list[Step] = []
    compare: list[Step] = []
    if config.dedup.exact:
        clean.blocks.append(dedup.exact_signatures(exact))
        find = [Step("find_exact", 1, [dedup.exact_find(exact)])]
        unique.blocks.append(meter(dedup.exact_filter(exact), "exact_dedup", "exact_duplicate"))
    unique.blocks.append(StoreDocuments(places.unique))
    if minhash := config.dedup.minhash:
        unique.blocks.append(dedup.minhash_signatures(minhash, near))
        compare = [
            Step("compare", minhash.buckets, [dedup.minhash_buckets(minhash, near)]),
            Step("cluster", 1, [dedup.minhash_cluster(minhash, near)]),
        ]
        final.blocks.append(meter(dedup.minhash_filter(near), "near_dedup", "near_duplicate"))
    final.blocks.append(StoreDocuments(places.final))
    return [clean, *find, unique, *compare, final]


class _Meter:
    """Wraps blocks in order, numbering them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.position = folder, 0

    def __call__(self, block: PipelineStep, name: str, default_reason: str = "dropped") -> Metered:
        self.position += 1
        return Metered(block, name, self.folder, self.position, default_reason)


def _clean_blocks(config: DataPrepConfig, files: list[CrawlFile], meter: _Meter) -> list[PipelineStep]:
    return [
        RecordReader(files, config.input.limit),
        meter(DecodeRecords(), "read"),
        meter(ExtractText(config.extract), "extract", "no_text"),
        meter(LanguageFilter(config.languages), "language"),
        *[meter(block, block.name) for block in _quality_filters(config.filters, config.languages.keep)],
        meter(mask_pii(config.pii), "pii"),
    ]


def _quality_filters(config: FiltersConfig, languages: list[str]) -> list[PipelineStep]:
    built: list[PipelineStep] = []
    if config.gopher_repetition:
        built.append(filters.gopher_repetition(config.gopher_repetition, languages))
    if config.gopher_quality:
        built.append(filters.gopher_quality(config.gopher_quality, languages))
    if config.c4:
        built.append(filters.c4(config.c4, languages))
    if config.fineweb:
        built.append(filters.fineweb(config.fineweb, languages))
    return built


def _tokenize_step(config: DataPrepConfig, run: RunDirectory, places: Places) -> Step:
    meter = _Meter(places.ledger)
    meter.position = 89  # after every block of the text steps, whichever of them are on
    encode = meter(EncodeDocuments(run.artifacts / TOKENIZER_FILE, places.encoded), "tokenize")
    return Step("tokenize", config.tasks, [LoadDocuments(places.final), encode])


def _execute(step: Step, config: DataPrepConfig, run: RunDirectory, places: Places) -> None:
    workers = available_cores() if config.workers == "auto" else config.workers
    progress = _progress(run, step.name)
    LocalExecutor(step.blocks, step.tasks, workers, places.work / "steps" / step.name, progress).run()


def _progress(run: RunDirectory, block: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        append_event(run, "progress", block=block, done=done, total=total)

    return report


def _tokenizer(config: DataPrepConfig, run: RunDirectory, places: Places) -> None:
    """Train, convert and check the tokenizer; its SentencePiece file is written last and says that all is done."""
    report = _progress(run, "train_tokenizer")
    path = run.artifacts / TOKENIZER_FILE
    report(0, 1)
    if not path.exists():
        total = read_ledger(places.ledger)[-1].bytes_out
        texts = (document.text for document in read_all_stored(places.final))
        model = train(config.tokenizer, sample_lines(texts, total, config.tokenizer.sample_bytes))
        processor = SentencePieceProcessor(model_proto=model)
        converted = huggingface.convert(processor, config.tokenizer.kind)
        huggingface.check_same_ids(processor, converted, _check_sample(places.final))
        huggingface.write(converted, path.parent)
        atomic_write(path, model)
    report(1, 1)


def _check_sample(folder: Path) -> list[str]:
    """Some documents of every language."""
    chosen: dict[str, list[str]] = {}
    for document in read_all_stored(folder):
        texts = chosen.setdefault(document.metadata["language"], [])
        if len(texts) < _CHECKED_PER_LANGUAGE:
            texts.append(document.text)
    return [text for texts in chosen.values() for text in texts]


def _finish(config: DataPrepConfig, run: RunDirectory, places: Places, files: list[CrawlFile]) -> None:
    splits = join_splits(
        places.encoded, places.final, run.artifacts, config.split.validation_fraction, config.tokenizer.vocab_size
    )
    blocks = read_ledger(places.ledger)
    card = build_card(config, run.id, run.artifacts, places.final, blocks, files, splits)
    write_card(run.artifacts / CARD_NAME, card)
    if not config.keep_intermediate:
        shutil.rmtree(places.work)
