"""The run of a recipe: steps in order, each task by task; what is finished is never done again."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from data_prep.blocks.words import check_languages
from data_prep.card import build_card, check_survivors
from data_prep.clock import TaskClock, timed
from data_prep.config import DataPrepConfig
from data_prep.executors.hosts import Hosts
from data_prep.executors.table import Executor, build_executor
from data_prep.fertility import check_compare_with
from data_prep.given_tokenizer import check_given_tokenizer
from data_prep.inputs import CrawlFile, find_inputs
from data_prep.ledger import read_ledger
from data_prep.make_tokenizer import TOKENIZER_FILE, make_tokenizer, read_note
from data_prep.statistics import merge
from data_prep.steps import Places, Step, quality_filters, text_steps, tokenize_step
from data_prep.tokenize import join_splits
from kit.files import disk_full_as_failure
from kit.run.directory import RunDirectory
from kit.run.events import append_event
from kit.tokens.card import CARD_NAME, write_card


def run(config: DataPrepConfig, run: RunDirectory, hosts: Hosts | None = None) -> None:
    """Prepare a dataset: everything under RUN_DIR/artifacts, the card last.

    Args:
        config: the recipe.
        run: where it goes.
        hosts: those that work on it, as this one sees them; None: this machine alone.

    Raises:
        UserError: bad input, or nothing survives.
        RunFailure: a full disk, a killed worker, a tokenizer that cannot be converted exactly, another host's failure.
    """
    hosts = hosts or Hosts()
    places = Places(run.path / "work")
    if (run.artifacts / CARD_NAME).exists():  # it ended while it tidied up, and nothing else was left to do
        if hosts.first:
            _tidy_up(config, places)
        return
    files = _inputs(config, run, hosts)
    executor = build_executor(config, hosts)
    with disk_full_as_failure(places.work):
        for step in text_steps(config, files, places):
            _execute(step, executor, run, places)
            if step.name == "clean":
                check_survivors(read_ledger(places.ledger))
        fast = _tokenizer(config, run, places, hosts)
        _execute(tokenize_step(config, run.artifacts / TOKENIZER_FILE, fast, places), executor, run, places)
        if hosts.only_first_remains():
            _finish(config, run, places, files)


def _inputs(config: DataPrepConfig, run: RunDirectory, hosts: Hosts) -> list[CrawlFile]:
    """The crawl files; what would fail hours later is looked at now."""
    files, skipped = find_inputs(config.input.paths)
    if quality_filters(config.filters):
        check_languages(config.languages.keep)
    check_compare_with(config.tokenizer)
    check_given_tokenizer(config.tokenizer)
    hosts.agree("inputs", "\n".join(file.given for file in files))
    if hosts.first:
        for file in skipped:
            append_event(run, "skipped_file", path=file.given, reason=file.reason)
    return files


def _execute(step: Step, executor: Executor, run: RunDirectory, places: Places) -> None:
    clock = TaskClock(places.clock, step.name)
    blocks = [clock, *step.blocks, clock]
    executor.execute(blocks, step.tasks, places.work / "steps" / step.name, _progress(run, step.name))


def _progress(run: RunDirectory, block: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        append_event(run, "progress", block=block, done=done, total=total)

    return report


def _tokenizer(config: DataPrepConfig, run: RunDirectory, places: Places, hosts: Hosts) -> bool:
    """Have the first host make the tokenizer; whether the fast encoder stands in for SentencePiece."""
    note = places.work / "tokenizer.json"
    with hosts.first_only("tokenizer") as mine:
        if mine:
            report = _progress(run, "train_tokenizer")
            report(0, 1)
            if not note.exists():
                with timed(places.clock, "tokenizer"):
                    make_tokenizer(config.tokenizer, places, run, note)
            report(1, 1)
    return bool(read_note(note)["fast_encoder"])


def _finish(config: DataPrepConfig, run: RunDirectory, places: Places, files: list[CrawlFile]) -> None:
    with timed(places.clock, "join"):
        splits = join_splits(places.encoded, run.artifacts, config.split.validation_fraction)
    card = build_card(config, run, places, files, splits, merge(places.statistics))
    write_card(run.artifacts / CARD_NAME, card)
    _tidy_up(config, places)


def _tidy_up(config: DataPrepConfig, places: Places) -> None:
    """Once the card is there, what lies between the steps is of no use."""
    if not config.keep_intermediate and places.work.exists():
        shutil.rmtree(places.work)
