"""Exact duplicates by text and address, and repeated lines: the first in input order stays, whoever ran first."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from data_prep.blocks.config import LinesConfig
from data_prep.blocks.exact import (
    exact_filter,
    exact_find,
    exact_signatures,
    normalised_address,
    url_filter,
    url_find,
    url_signatures,
)
from data_prep.blocks.lines import lines_filter, lines_find, lines_signatures, unit_key
from data_prep.dedup.identity import listed, write_repeated
from data_prep.ledger import REASON
from kit.errors import RunFailure

Tasks = list[list[Document]]
Blocks = tuple[PipelineStep, PipelineStep, PipelineStep]


def document(text: str, url: str = "", name: str = "x") -> Document:
    return Document(text=text, id=name, metadata={"url": url} if url else {})


def run(blocks: Blocks, tasks: Tasks, shards: int = 3, order: int = 1) -> list[list[Document]]:
    """Signatures of all tasks (in any order), find, and what the filter leaves of each task."""
    signatures, find, drop = blocks
    for rank in range(len(tasks))[::order]:
        assert list(signatures.run(iter(tasks[rank]), rank, len(tasks))) == tasks[rank]
    for rank in range(shards):
        find.run(None, rank, shards)
    return [list(drop.run(iter(task), rank, len(tasks))) for rank, task in enumerate(tasks)]


def by_text(folder: Path) -> Blocks:
    return exact_signatures(folder), exact_find(folder), exact_filter(folder)


def by_url(folder: Path) -> Blocks:
    return url_signatures(folder), url_find(folder), url_filter(folder)


def by_line(folder: Path, **changes: object) -> Blocks:
    config = LinesConfig.model_validate({"unit": "line", "min_characters": 10, "min_words_left": 3} | changes)
    return lines_signatures(config, folder), lines_find(config, folder), lines_filter(config, folder)


@pytest.mark.parametrize("shards", [1, 3, 16])
@pytest.mark.parametrize("order", [1, -1])
def test_the_first_of_equal_texts_stays(tmp_path: Path, shards: int, order: int) -> None:
    tasks = [
        [document("a b"), document("c"), document(" a\n\u00a0b ")],
        [document("c"), document("d"), document("A b")],
    ]
    left = run(by_text(tmp_path), tasks, shards, order)
    assert [[item.text for item in task] for task in left] == [["a b", "c"], ["d", "A b"]]
    assert tasks[1][0].metadata[REASON] == "exact_duplicate"


def test_the_first_of_equal_addresses_stays(tmp_path: Path) -> None:
    tasks = [
        [document("one", "https://www.Example.org:443/a/#top"), document("two"), document("three")],
        [document("four", "http://example.org/a"), document("five", "http://example.org/a?page=2")],
    ]
    left = run(by_url(tmp_path), tasks)
    assert [item.text for task in left for item in task] == ["one", "two", "three", "five"]
    assert tasks[1][0].metadata[REASON] == "url_duplicate"


def test_addresses_that_cannot_be_taken_apart_count_as_they_are() -> None:
    assert normalised_address("http://[::1/x") == "http://[::1/x"
    assert normalised_address("http://user@Example.org:80/A/?Q=1#f") == "example.org/A?Q=1"
    assert normalised_address("http://example.org:8080/") == "example.org:8080"


def test_repeated_lines_are_cut_and_short_ones_stay(tmp_path: Path) -> None:
    banner, menu = "Sign up for our newsletter, issue 12", "Home\nNews"
    first = document(f"{menu}\n{banner}\nThe fox is red today.\n")
    second = document(f"{menu}\nThe hare is brown this year.\nSIGN UP for our newsletter: issue 13\nThe end of it.")
    third = document(f"{banner}\ntwo words")
    left = run(by_line(tmp_path), [[first], [second, third, document("untouched")]])
    assert [item.text for task in left for item in task] == [
        f"{menu}\n{banner}\nThe fox is red today.\n",
        f"{menu}\nThe hare is brown this year.\nThe end of it.",
        "untouched",
    ]
    assert third.metadata[REASON] == "too_short_after_line_dedup"


def test_a_line_that_repeats_within_its_page_is_cut_there(tmp_path: Path) -> None:
    page = document(
        "Read more about it here\nSomething else entirely\nRead more about it here\nRead more about it here"
    )
    assert run(by_line(tmp_path), [[page]])[0][0].text == "Read more about it here\nSomething else entirely"
    assert page.metadata["cut_lines"] == 2


def test_repeated_paragraphs_are_cut(tmp_path: Path) -> None:
    notice = "All rights reserved\nby their owners"
    tasks = [[document(f"First page here.\n\n{notice}")], [document(f"{notice}\n \n\nSecond page, quite different.")]]
    left = run(by_line(tmp_path, unit="paragraph"), tasks)
    assert [task[0].text for task in left] == [f"First page here.\n\n{notice}", "Second page, quite different."]


def test_lines_are_compared_by_their_letters() -> None:
    assert unit_key("“Déjà vu” — 12 times!", 5) == unit_key("déjà VU, times", 5) is not None
    assert unit_key("12.30 14.45 16.50 20.15 22.00", 5) is None
    assert unit_key("東京都東京都東京都東京都", 10) is not None
    assert unit_key("東京都", 10) is None


@pytest.mark.parametrize("make", [by_text, by_url, by_line])
def test_no_documents_at_all(tmp_path: Path, make: Callable[[Path], Blocks]) -> None:
    assert run(make(tmp_path), [[], []]) == [[], []]


def test_a_key_that_is_cut_by_the_end_of_a_piece_counts_on(tmp_path: Path) -> None:
    keys, places = np.array([1, 1, 1, 2, 3, 3], np.uint64), np.arange(6, dtype=np.uint64)
    for cuts in ([], [1], [1, 2, 3, 4, 5]):
        pieces = zip(np.split(keys, cuts), np.split(places, cuts), strict=True)
        write_repeated(iter(pieces), tmp_path / "00000.runs")
        assert list(listed(tmp_path, 0)) == [1, 2, 5]


@pytest.mark.parametrize("make", [by_text, by_line])
def test_a_filter_that_sees_other_documents_than_the_signatures_says_so(
    tmp_path: Path, make: Callable[[Path], Blocks]
) -> None:
    tasks = [[document("a"), document("b")]]
    _, _, drop = make(tmp_path)
    run(make(tmp_path), tasks)
    with pytest.raises(RunFailure, match=r"1 documents to filter, but the signatures in .* are of 2"):
        list(drop.run(iter(tasks[0][:1]), 0, 1))


class Corpus(PipelineStep):
    """Documents of a task: a third of them repeat one of another task."""

    type, name = "TEST", "corpus"

    def run(self, data: None = None, rank: int = 0, world_size: int = 1):  # type: ignore[no-untyped-def]
        for place in range(60):
            yield document(f"page {place if place % 3 == 0 else (rank, place)}", name=str(place))


class Keep(PipelineStep):
    """Writes down what comes by."""

    type, name = "TEST", "keep"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data, rank: int = 0, world_size: int = 1):  # type: ignore[no-untyped-def]
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(rank)).write_text("\n".join(item.text for item in data))
        yield from ()


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_datatroves_executor_gives_the_same_bytes_with_one_worker_and_with_two(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        signatures, find, drop = by_text(folder)
        steps = [(4, [Corpus(), signatures]), (3, [find]), (4, [Corpus(), drop, Keep(folder / "kept")])]
        for i, (tasks, blocks) in enumerate(steps):
            logs = str(folder / "logs" / str(i))
            LocalPipelineExecutor(blocks, tasks=tasks, workers=workers, logging_dir=logs, skip_completed=False).run()
        found.append(digests(folder))
    assert found[0] == found[1]
    assert sum(len((tmp_path / "1" / "kept" / str(i)).read_text().split("\n")) for i in range(4)) == 60 + 3 * 40


def test_a_task_that_is_repeated_writes_the_same_bytes(tmp_path: Path) -> None:
    tasks = [[document("a"), document("b"), document("a")], [document("b")]]
    run(by_text(tmp_path), tasks)
    before = digests(tmp_path)
    cut = exact_signatures(tmp_path).run(iter(tasks[0]), 0, 2)
    next(cut)
    del cut  # which ends it, as when a worker is told to stop in the middle
    assert {name: digest for name, digest in digests(tmp_path).items() if not name.endswith(".partial")} == before
    run(by_text(tmp_path), tasks)
    assert digests(tmp_path) == before
