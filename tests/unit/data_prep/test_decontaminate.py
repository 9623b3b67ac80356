"""Evaluation items are found in pages, and pages without them stay."""

import csv
import gzip
import json
import lzma
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from datatrove.data import Document

from data_prep.blocks.config import DecontaminateConfig
from data_prep.blocks.decontaminate import Decontaminate, evaluation_texts
from data_prep.ledger import REASON
from kit.errors import UserError

EVAL = Path(__file__).parents[4] / "shared" / "data" / "eval"
QUESTION = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May."
PAGE = "A page about something else altogether, which nobody would mistake for an examination of anybody.\n"
Write = Callable[[list[object]], Path]


def block(*paths: Path, **changes: object) -> Decontaminate:
    return Decontaminate(DecontaminateConfig.model_validate({"paths": [str(path) for path in paths]} | changes))


def judge(decontaminate: Decontaminate, text: str) -> Document | None:
    """The document if it stays."""
    return next(decontaminate.run(iter([Document(text=text, id="x")])), None)


@pytest.mark.skipif(not EVAL.exists(), reason="the evaluation sets of ../shared/data are not on this machine")
@pytest.mark.parametrize("name", ["gsm8k_test.jsonl.xz", "truthfulqa.csv.xz", "boolq.jsonl.xz"])
def test_items_of_real_sets_are_found_and_the_page_without_them_stays(
    name: str, sample_pages: list[tuple[str, bytes]]
) -> None:
    items = [text for text in evaluation_texts(EVAL / name) if len(text.split()) >= 20]
    decontaminate = block(EVAL / name)
    pages = [payload.decode("utf-8", "replace") for _, payload in sample_pages[:40]]
    for place, page in enumerate(pages):
        assert judge(decontaminate, page), place
        item = items[place * len(items) // len(pages)].upper().replace(" ", "\n ")
        found = Document(text=f"{page[:900]} {item} {page[900:]}", id="x")
        assert not list(decontaminate.run(iter([found])))
        assert (found.metadata[REASON], found.metadata["overlap_sets"]) == ("contaminated", [name])


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    rows = {"question": QUESTION, "more": [{"deep": "x"}], "number": 5}
    (tmp_path / "a.jsonl").write_text(json.dumps(rows) + "\n\n")
    (tmp_path / "a.json").write_text(json.dumps([rows]))
    (tmp_path / "a.txt").write_text("a first paragraph\n\n" + QUESTION.replace("April ", "April\n") + "\n")
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        csv.writer(file).writerows([["id", "text"], ["1", QUESTION]])
    with lzma.open(tmp_path / "a.tsv.xz", "wt") as file:
        file.write(f"1\t{QUESTION}\n")
    for path in sorted(tmp_path.iterdir()):
        assert judge(block(path), f"{PAGE} {QUESTION} {PAGE}") is None, path
        assert judge(block(path), PAGE), path


def test_a_short_item_counts_as_a_whole_and_a_very_short_one_not(jsonl: Write) -> None:
    ten, seven = "which of these ten words is the very last one", "this question has only seven words here"
    decontaminate = block(jsonl([{"q": ten}, {"q": seven}]))
    assert judge(decontaminate, f"{PAGE} {ten.title()}? {PAGE}") is None
    assert judge(decontaminate, f"{PAGE} {seven} {PAGE}")
    assert judge(decontaminate, f"{PAGE} {ten.replace('very', 'quite')} {PAGE}")


def test_overlaps_are_counted_and_a_few_may_be_allowed(jsonl: Write) -> None:
    path = jsonl([{"q": QUESTION}])
    text = f"{PAGE} {' '.join(QUESTION.split()[:15])} {PAGE}"  # 15 words hold three runs of 13
    kept = judge(block(path, max_overlaps=3), f"{text} {text}")
    assert kept is not None
    assert (kept.metadata["overlaps"], kept.metadata["overlap_sets"]) == (3, ["texts.jsonl"])
    assert judge(block(path, max_overlaps=2), text) is None


def test_a_copy_of_the_block_shares_the_index(jsonl: Write) -> None:
    decontaminate = block(jsonl([{"q": QUESTION}]))
    assert deepcopy(decontaminate).index is decontaminate.index
    assert judge(pickle.loads(pickle.dumps(decontaminate)), QUESTION) is None


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("missing.jsonl", None, "no file at"),
        ("empty.jsonl", b"", "no text of 8 words or more"),
        ("short.txt", b"too short", "no text of 8 words or more"),
        ("torn.jsonl", b'{"q": "x"}\n{"q": ', "line 2 is not JSON"),
        ("torn.jsonl.xz", b"\xfd7zXZ\x00 not really", "is damaged"),
        ("latin.txt", b"caf\xe9", "is damaged"),
        ("table.parquet", b"PAR1", "table.parquet"),
        ("noname", b"x", "noname"),
    ],
)
def test_bad_files_are_said_at_once(tmp_path: Path, name: str, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=found):
        block(tmp_path / name)
