"""Near duplicates: what is found, what is left alone, and that every page that goes is like one that stays."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from resiliparse.extract.html2text import extract_plain_text

from benchmarks.data.dedup import Shingles
from benchmarks.data.dedup_chains import Found, ours
from data_prep.blocks.config import MinHashConfig
from data_prep.blocks.minhash import minhash_buckets, minhash_cluster, minhash_filter, minhash_signatures
from data_prep.dedup.groups import Decisions
from data_prep.dedup.pairs import Pairs, candidates
from data_prep.dedup.runs import merged, run_files
from data_prep.dedup.sketches import sketch
from data_prep.ledger import REASON

CONFIG = MinHashConfig()
Tasks = list[list[str]]
Changes = dict[str, tuple[int, Callable[[str], str]]]


def documents(texts: list[str], rank: int = 0) -> list[Document]:
    return [
        Document(text=text, id=f"{rank}.{i}", metadata={"url": f"http://x/{rank}/{i}"}) for i, text in enumerate(texts)
    ]


def run(tasks: Tasks, folder: Path, shards: int = 3, config: MinHashConfig = CONFIG) -> list[list[str]]:
    """The four steps; identifiers of the pages that stay, by task."""
    for rank, texts in enumerate(tasks):
        assert [
            item.text for item in minhash_signatures(config, folder).run(iter(documents(texts, rank)), rank)
        ] == texts
    for rank in range(shards):
        minhash_buckets(config, folder).run(None, rank, shards)
    minhash_cluster(config, folder).run(None, 0, 1)
    return [
        [item.id for item in minhash_filter(config, folder).run(iter(documents(texts, rank)), rank)]
        for rank, texts in enumerate(tasks)
    ]


@pytest.fixture(scope="module")
def texts(sample_pages: list[tuple[str, bytes]]) -> list[str]:
    """The text of real pages in four languages, of at least 200 words."""
    bodies = [page.partition(b"\r\n\r\n")[2].decode("utf-8", "replace") for _, page in sample_pages]
    found = [extract_plain_text(body, main_content=True) for body in bodies]
    return [text for text in found if len(text.split()) >= 200]


def edited(text: str, share: float, seed: int) -> str:
    """The text with a share of its words replaced."""
    draw = random.Random(seed)
    return " ".join(f"zq{draw.randrange(9999)}" if draw.random() < share else word for word in text.split(" "))


def test_injected_copies_are_found_and_little_else_is(texts: list[str], tmp_path: Path) -> None:
    copies = [edited(text, (0.005, 0.015, 0.1)[i % 3], i) for i, text in enumerate(texts)]
    pages = documents(texts + copies)
    ours(pages, tmp_path)
    found, sets, count = Found.by_us(tmp_path, len(pages)), Shingles(texts + copies), len(texts)
    similarity = [sets.similarity(i, count + i) for i in range(count)]
    near = [i for i in range(count) if similarity[i] >= 0.8]
    assert len(near) > count / 2
    assert sum(found.finds(i, count + i) for i in near) >= 0.97 * len(near)
    right = [sets.similarity(*pair) >= 0.7 for pair in found.pairs]
    assert sum(right) >= 0.95 * len(right)
    far = [i for i in range(count) if similarity[i] < 0.6]
    assert len(far) > 10
    assert not any(found.finds(i, count + i) for i in far)


def test_the_first_stays_whatever_the_shards_and_the_order_of_tasks(texts: list[str], tmp_path: Path) -> None:
    tasks = [
        [texts[0], texts[1]],
        [edited(texts[1], 0.01, 1), texts[2]],
        [texts[3], edited(texts[0], 0.01, 2), texts[2]],
    ]
    expected = [["0.0", "0.1"], ["1.1"], ["2.0"]]
    summaries = []
    for shards in (1, 5):
        assert run(tasks, tmp_path / str(shards), shards) == expected
        summaries.append((tmp_path / str(shards) / "clusters.json").read_bytes())
    assert summaries[0] == summaries[1]
    dropped = documents(tasks[2], 2)
    list(minhash_filter(CONFIG, tmp_path / "1").run(iter(dropped), 2))
    assert dropped[1].metadata[REASON] == "near_duplicate"


def test_the_summary_counts_clusters_and_shows_the_largest(texts: list[str], tmp_path: Path) -> None:
    tasks = [[texts[0], texts[1], texts[0]], [texts[1], texts[0], texts[2]]]
    run(tasks, tmp_path)
    summary = json.loads((tmp_path / "clusters.json").read_text())
    assert (summary["documents"], summary["dropped"], summary["sizes"]) == (6, 3, {"2": 1, "3": 1})
    largest = summary["examples"][0]
    assert largest["size"] == 3
    assert [item["id"] for item in largest["documents"]] == ["0.0", "0.2", "1.1"]
    assert largest["documents"][2]["url"] == "http://x/1/1"


def test_what_goes_is_like_something_that_stays(tmp_path: Path) -> None:
    """A chain of pages, each like the one before: joined up it would leave one page, though its ends share nothing."""
    draw = random.Random(3)
    words = [f"w{draw.randrange(10**6)}" for _ in range(1000)]
    pages = [" ".join(words[25 * i : 25 * i + 500]) for i in range(20)]
    kept = {int(name.partition(".")[2]) for name in run([pages], tmp_path)[0]}
    assert 3 <= len(kept) < len(pages)
    sets = Shingles(pages)
    stays = dict(zip(*(column.tolist() for column in next(merged(run_files(tmp_path / "remove")))), strict=True))
    assert set(stays) | kept == set(range(20))
    assert all(instead in kept and sets.similarity(gone, instead) > 0.6 for gone, instead in stays.items())


def test_short_pages_and_pages_without_words(tmp_path: Path) -> None:
    pages = ["one two", "One, two!", "one three", "***", "***", "", "", "東京都", "東京都", "東京市"]
    assert run([pages], tmp_path)[0] == ["0.0", "0.2", "0.3", "0.5", "0.7", "0.9"]


def test_no_documents(tmp_path: Path) -> None:
    assert run([[], []], tmp_path) == [[], []]
    assert json.loads((tmp_path / "clusters.json").read_text())["sizes"] == {}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05])
def test_signatures_estimate_the_similarity(texts: list[str], share: float) -> None:
    pairs = [(text, edited(text, share, i)) for i, text in enumerate(texts)]
    true = [Shingles(list(pair)).similarity(0, 1) for pair in pairs]
    estimated = [float(np.mean(sketch(a, CONFIG) == sketch(b, CONFIG))) for a, b in pairs]
    assert abs(float(np.mean(np.subtract(estimated, true)))) < 0.02
    assert max(abs(np.subtract(estimated, true))) < 0.2


def test_a_bucket_of_any_size_gives_few_pairs_and_may_be_cut_anywhere() -> None:
    keys, places = np.full(100, 7, np.uint64), np.arange(100, dtype=np.uint64)

    def pairs(cuts: list[int]) -> set[tuple[int, int]]:
        pieces = zip(np.split(keys, cuts), np.split(places, cuts), strict=True)
        return {pair for a, b in candidates(pieces) for pair in zip(a.tolist(), b.tolist(), strict=True)}

    whole = pairs([])
    assert len(whole) <= 500
    assert {(99, 0), (99, 98), (1, 0)} <= whole
    assert all(later > earlier for later, earlier in whole)
    assert pairs([1, 3, 50]) == whole


def test_a_page_stays_where_the_one_it_is_like_went_for_another(tmp_path: Path) -> None:
    """1 goes for 0; 2 is like 1 alone: it stays, and 3, like 2, goes for it."""

    class Fixed:
        def counts(self) -> dict[int, int]:
            return {0: 4}

        def similarities(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return np.array([0.5] * len(first), np.float32)

    decisions = Decisions(tmp_path / "scratch", Fixed(), 0.8)  # type: ignore[arg-type]
    pairs = Pairs(np.array([1, 2, 3], np.uint64), np.array([0, 1, 2], np.uint64), np.ones(3, np.float32))
    decisions.decide(iter([pairs]), tmp_path / "00000.runs")
    gone, instead = next(merged(run_files(tmp_path)))
    assert (gone.tolist(), instead.tolist()) == ([1, 3], [0, 2])
