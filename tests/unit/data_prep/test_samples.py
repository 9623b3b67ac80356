"""Statistics and samples of kept and dropped documents: the same however the input is cut into tasks."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.clock import TaskClock, read_clock, timed
from data_prep.ledger import PAYLOAD
from data_prep.samples import EXCERPT_CHARACTERS, SAMPLES, SmallestHashes, excerpt, smallest, write_samples
from data_prep.statistics import DroppedStatistics, KeptStatistics, Statistics, merge
from kit.tokens.card import LanguageCard, SourceCard
from kit.tokens.shards import ShardWriter, best_dtype

BLOCKS = ("language", "quality")


def documents(count: int) -> list[Document]:
    made = []
    for number in range(count):
        language = ("en", "de", "")[number % 3]
        metadata = {"url": f"http://example.org/{number}", "file": f"f{number % 2}"}
        found = Document(text=f"é{number} " * (number % 40), id=f"f{number % 2}@{number}", metadata=metadata)
        if language:
            found.metadata["language"] = language
        made.append(found)
    return made


def count_in_tasks(folder: Path, tasks: int, found: list[Document], order: random.Random) -> Statistics:
    """Every third document is dropped, by one of two blocks; tasks end in any order."""
    ranks = list(range(tasks))
    order.shuffle(ranks)
    dropped = DroppedStatistics(folder)
    for rank in ranks:
        mine = [(place, document) for place, document in enumerate(found) if place % tasks == rank]
        seen = {block: dropped.begin(block) for block in BLOCKS}
        for place, document in mine:
            if place % 3 == 1:
                seen[BLOCKS[place % 2]].saw(document, f"reason_{place % 4}")
        for block in BLOCKS:
            dropped.end(seen[block], rank)
        kept = [document for place, document in mine if place % 3 != 1]
        assert list(KeptStatistics(folder).run(iter(kept), rank, tasks)) == kept
    return merge(folder)


def test_the_result_does_not_depend_on_the_cutting_into_tasks(tmp_path: Path) -> None:
    found = documents(400)
    one = count_in_tasks(tmp_path / "one", 1, found, random.Random(1))
    assert len(one.kept) == len(one.dropped) == SAMPLES
    for tasks in (2, 7, 100):
        assert count_in_tasks(tmp_path / str(tasks), tasks, found, random.Random(tasks)) == one
    assert {sample.block for sample in one.dropped} == set(BLOCKS)
    assert all(sample.block == sample.reason == "" for sample in one.kept)


def test_another_seed_chooses_others_and_the_choice_is_not_the_order() -> None:
    chosen = []
    for seed in (0, 1):
        heap = SmallestHashes(5, seed)
        for document in documents(200):
            heap.offer(document)
        chosen.append([sample.id for sample in heap.samples()])
    assert set(chosen[0]) != set(chosen[1])
    # Were it the first five, or five neighbours, the span would be small.
    places = [int(name.split("@")[1]) for name in chosen[0]]
    assert max(places) - min(places) > 20


def test_every_document_is_as_likely_as_another() -> None:
    hits = [0] * 50
    for seed in range(400):
        heap = SmallestHashes(5, seed)
        for document in documents(50):
            heap.offer(document)
        for sample in heap.samples():
            hits[int(sample.id.split("@")[1])] += 1
    assert sum(hits) == 2000
    assert min(hits) > 15  # 40 expected, with a standard deviation of 6
    assert max(hits) < 65


def test_counts_by_hand(tmp_path: Path) -> None:
    def made(text: str, name: str, file: str, **more: object) -> Document:
        return Document(text=text, id=name, metadata={"file": file, **more})

    dropped = DroppedStatistics(tmp_path)
    early, late = dropped.begin("read"), dropped.begin("quality")
    early.saw(made("", "a", "one", **{PAYLOAD: b"\x00<p>caf\xc3\xa9"}), "corrupt_record")
    late.saw(made("ééé", "b", "one", language="fr"), "short")
    late.saw(made("12345678", "c", "two", language="en"), "short")
    for seen in (early, late):
        dropped.end(seen, 0)
    kept = [made("1234", "d", "one", language="fr"), made("", "e", "three")]
    list(KeptStatistics(tmp_path).run(iter(kept)))
    found = merge(tmp_path)
    assert found.languages_in == {
        "en": LanguageCard(documents=1, bytes=8),
        "fr": LanguageCard(documents=2, bytes=10),
        "unknown": LanguageCard(documents=1, bytes=0),
    }
    assert found.languages.keys() == {"fr", "unknown"}
    assert found.lengths_kept == {0: 1, 4: 1}
    assert found.lengths_dropped == {2: 1, 8: 1}  # the damaged record was never text
    assert found.sources == {
        "one": SourceCard(documents=1, bytes=4, dropped=2),
        "three": SourceCard(documents=1, bytes=0),
        "two": SourceCard(documents=0, bytes=0, dropped=1),
    }
    damaged = next(sample for sample in found.dropped if sample.id == "a")
    assert (damaged.text, damaged.characters) == ("\N{REPLACEMENT CHARACTER}<p>café", 9)


def test_copies_of_a_mixture_are_in_the_dataset_but_came_in_once(tmp_path: Path) -> None:
    page = Document(text="abcd", id="x", metadata={"file": "f", "language": "en", "source": "books"})
    other = Document(text="ab", id="y", metadata={"file": "f", "language": "en", "source": "books"})
    list(KeptStatistics(tmp_path).run(iter([page, page, page, other])))
    found = merge(tmp_path)
    assert found.languages == {"en": LanguageCard(documents=4, bytes=14)}
    assert found.languages_in == {"en": LanguageCard(documents=2, bytes=6)}
    assert found.sources == {"books": SourceCard(documents=4, bytes=14)}
    assert sorted(sample.id for sample in found.kept) == ["x", "y"]


class Shards(PipelineStep):
    """Writes a shard in which the document number n has n + 1 tokens; it has its name when the documents end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with ShardWriter(self.folder / f"{rank:05d}", best_dtype(1000)) as writer:
            for number, document in enumerate(data):
                writer.add(np.arange(number + 1))
                yield document
            writer.finish()


def test_tokens_are_counted_in_the_shards(tmp_path: Path) -> None:
    row = KeptStatistics(tmp_path / "statistics", tmp_path / "encoded")
    for rank, count in ((0, 5), (1, 2), (2, 0)):
        list(row.run(Shards(tmp_path / "encoded").run(iter(documents(count)), rank), rank))
    sources = merge(tmp_path / "statistics").sources
    # Tokens 1 to 5 and 1 to 2; the files take turns.
    assert {name: found.tokens for name, found in sources.items()} == {"f0": 1 + 3 + 5 + 1, "f1": 2 + 4 + 2}


def test_a_task_that_is_run_again_counts_once(tmp_path: Path) -> None:
    dropped = DroppedStatistics(tmp_path)
    for drops in (3, 0):
        seen = dropped.begin("quality")
        for document in documents(drops):
            seen.saw(document, "bad")
        dropped.end(seen, 0)
        list(KeptStatistics(tmp_path).run(iter(documents(4))))
    found = merge(tmp_path)
    assert found.dropped == []
    assert sum(source.documents for source in found.sources.values()) == 4


def test_nothing_seen_is_nothing_told(tmp_path: Path) -> None:
    assert merge(tmp_path / "missing") == Statistics({}, {}, {}, {}, {}, [], [])


def test_excerpts_hold_nothing_that_spoils_a_page() -> None:
    assert excerpt("a\x00b\x1b[31m\u202ec\ud800\r\nd\te") == "a\ufffdb\ufffd[31m\ufffdc?\nd\te"
    assert len(excerpt("x" * 10_000)) == EXCERPT_CHARACTERS


def test_the_written_samples_are_whole_and_ordered(tmp_path: Path) -> None:
    heap = SmallestHashes(3)
    for document in documents(30):
        heap.offer(document, "quality", "bad")
    write_samples(tmp_path / "samples.json", [], smallest(heap.samples()))
    written = json.loads((tmp_path / "samples.json").read_text())
    assert (written["schema_version"], written["kept"]) == (1, [])
    assert [row["key"] for row in written["dropped"]] == sorted(row["key"] for row in written["dropped"])
    assert written["dropped"][0].keys() >= {"id", "url", "language", "block", "reason", "characters", "text"}


class Work(PipelineStep):
    """Takes a little processor time a document."""

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            sum(range(400_000))
            yield document


def test_the_clock_sees_what_lies_between_its_ends(tmp_path: Path) -> None:
    found = documents(5)
    for rank in range(2):
        clock = TaskClock(tmp_path, "clean")
        ends = clock.run(clock_work(clock, found, rank), rank)
        assert ends is not None
        assert list(ends) == found
    alone = TaskClock(tmp_path, "find")  # a step without documents
    assert alone.run() is None
    assert list(alone.run() or ()) == []
    with timed(tmp_path, "train"):
        sum(range(1_000_000))
    seconds = read_clock(tmp_path)
    assert list(seconds) == ["clean", "find", "train"]
    assert seconds["clean"] > seconds["find"]
    assert seconds["train"] > 0
    assert len(list((tmp_path / "clean").iterdir())) == 2


def clock_work(clock: TaskClock, found: list[Document], rank: int) -> Iterator[Document]:
    begun = clock.run(iter(found), rank)
    assert begun is not None
    return Work().run(begun, rank)


def test_an_interrupted_part_notes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), timed(tmp_path, "train"):
        raise ValueError("stop")
    assert read_clock(tmp_path) == {}
