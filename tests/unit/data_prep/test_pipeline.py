"""The whole stage on real pages: the same bytes whatever the workers, exact books, and good words for bad input."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from data_prep import pipeline
from data_prep.blocks.store import read_all_stored
from data_prep.config import DataPrepConfig
from kit.errors import RunFailure, UserError
from kit.run.directory import RunDirectory
from kit.run.events import RunState, read_events, state_of
from kit.tokens.card import DatasetCard, read_card
from kit.tokens.check import check_shards
from kit.tokens.shards import Shard

from .conftest import ROOT, http, record

MakeRun = Callable[..., tuple[DataPrepConfig, RunDirectory]]


def files_of(run: RunDirectory) -> dict[str, bytes]:
    found = {path.relative_to(run.artifacts).as_posix(): path for path in run.artifacts.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "card.json"}


def without_times(card: DatasetCard) -> dict:
    data = card.model_dump(exclude={"created_by", "config_digest", "step_cpu_seconds"})
    for block in data["blocks"]:
        block.pop("cpu_seconds")
    return data


@pytest.fixture(scope="module")
def finished(make_run: MakeRun, small_crawl: Path) -> RunDirectory:
    config, run = make_run([str(small_crawl)], keep_intermediate=True)
    pipeline.run(config, run)
    return run


def test_one_or_two_workers_give_the_same_bytes(finished: RunDirectory, make_run: MakeRun, small_crawl: Path) -> None:
    config, run = make_run([str(small_crawl)], workers=2)
    pipeline.run(config, run)
    assert files_of(run) == files_of(finished)
    assert without_times(read_card(run.artifacts / "card.json")) == without_times(
        read_card(finished.artifacts / "card.json")
    )
    assert not (run.path / "work").exists()
    _check_books(finished)
    _check_text(finished)


def _check_books(run: RunDirectory) -> None:
    card = check_shards(run.artifacts, thorough=True)
    names = [block.name for block in card.blocks]
    assert names[:3] == ["read", "extract", "language"]
    assert names[-3:] == ["exact_dedup", "near_dedup", "tokenize"]
    for before, after in zip(card.blocks, card.blocks[1:], strict=False):
        assert (before.documents_out, before.bytes_out) == (after.documents_in, after.bytes_in)
    for block in card.blocks:
        assert block.documents_in == block.documents_out + sum(block.dropped.values())
        assert all(1 <= len(block.examples[reason]) <= 3 for reason in block.dropped)
    blocks = {block.name: block for block in card.blocks}
    assert blocks["exact_dedup"].dropped["exact_duplicate"] >= 1
    assert blocks["near_dedup"].dropped["near_duplicate"] >= 1
    assert card.documents_out == sum(split.documents for split in card.splits.values())
    assert blocks["tokenize"].bytes_out == sum(split.text_bytes for split in card.splits.values())
    assert len(card.languages) >= 4
    assert sum(language.documents for language in card.languages.values()) == card.documents_out


def _check_text(run: RunDirectory) -> None:
    """Every stored text is in exactly one split, comes back from its tokens, and ends with one end token."""
    processor = SentencePieceProcessor(model_file=str(run.artifacts / "tokenizer" / "tokenizer.model"))
    card = read_card(run.artifacts / "card.json")
    stored = [document.text for document in read_all_stored(run.path / "work" / "final")]
    decoded = []
    for split in card.splits.values():
        shard = Shard(run.artifacts / split.prefix)
        documents = [shard.document(index) for index in range(shard.documents)]
        assert all(document[-1] == card.tokenizer.eod_id for document in documents)
        assert all((document[:-1] != card.tokenizer.eod_id).all() for document in documents)
        texts = [processor.decode(document[:-1].tolist()) for document in documents]
        assert sum(len(text.encode()) for text in texts) == split.text_bytes
        decoded += texts
    assert sorted(decoded) == sorted(stored)
    assert len(set(stored)) == len(stored)


def _start(run: RunDirectory) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "data_prep", str(run.path)], cwd=ROOT, start_new_session=True)


def _wait_until_gone(group: int) -> None:
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"process group {group} lives on")


def test_stops_when_asked_and_goes_on_to_the_same_result(make_run: MakeRun, small_crawl: Path) -> None:
    changes = {"tasks": 10, "filters": dict.fromkeys(("gopher_repetition", "gopher_quality", "c4", "fineweb"))}
    config, whole = make_run([str(small_crawl)], workers=1, **changes)
    pipeline.run(config, whole)
    _, run = make_run([str(small_crawl)], workers=2, **changes)
    process = _start(run)
    deadline = time.monotonic() + 120
    while not any(event["event"] == "progress" and event["done"] for event in read_events(run)):
        assert process.poll() is None, (run.logs / "rank-00000.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0
    assert state_of(run) is RunState.STOPPED
    _wait_until_gone(process.pid)
    assert _start(run).wait(180) == 0
    assert state_of(run) is RunState.FINISHED
    assert json.loads((run.processes / "rank-00000.json").read_text())["pid"] > 0
    assert files_of(run) == files_of(whole)


def test_a_run_that_ended_while_it_tidied_up_is_finished(make_run: MakeRun, small_crawl: Path) -> None:
    config, run = make_run([str(small_crawl)], filters=dict.fromkeys(("gopher_repetition", "gopher_quality", "c4")))
    pipeline.run(config, run)
    made = files_of(run)
    (run.path / "work" / "steps").mkdir(parents=True)  # what a kill may have left: marks without their files
    pipeline.run(config, run)
    assert files_of(run) == made
    assert not (run.path / "work").exists()


def test_bad_input_ends_with_three_parts_and_code_2(make_run: MakeRun, tmp_path: Path) -> None:
    _, run = make_run([str(tmp_path / "missing.warc.gz")])
    process = subprocess.run([sys.executable, "-m", "data_prep", str(run.path)], cwd=ROOT, capture_output=True)
    assert process.returncode == 2
    event = read_events(run)[-1]
    assert event["event"] == "failed"
    assert "does not exist" in event["found"]
    assert event["expected"]
    assert event["action"]
    assert process.stderr == b""


def test_says_that_no_record_can_be_read(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "damaged.warc"
    path.write_bytes(record(http(b"<p>x</p>"))[:-30])
    config, run = make_run([str(path)])
    with pytest.raises(UserError, match="no page record could be read"):
        pipeline.run(config, run)


def test_says_which_block_left_nothing(make_run: MakeRun, jsonl: Callable[[list[object]], Path]) -> None:
    config, run = make_run([str(jsonl([{"text": "Ein kurzer deutscher Satz ist das hier."}] * 3))])
    with pytest.raises(UserError, match=r"0 of 3 documents survived: 3 were dropped by gopher_\w+"):
        pipeline.run(config, run)


def test_one_document_is_too_few(make_run: MakeRun, jsonl: Callable[[list[object]], Path]) -> None:
    config, run = make_run(
        [str(jsonl([{"text": "This is one English text that stands here all alone."}]))],
        filters={"gopher_repetition": None, "gopher_quality": None, "c4": None, "fineweb": None},
        tokenizer={"vocab_size": 320},
    )
    with pytest.raises(UserError):
        pipeline.run(config, run)


def test_another_text_with_the_same_tokenizer(
    finished: RunDirectory, make_run: MakeRun, jsonl: Callable[[list[object]], Path]
) -> None:
    texts = [document.text for document in read_all_stored(finished.path / "work" / "final")]
    model = finished.artifacts / "tokenizer" / "tokenizer.model"
    config, run = make_run([str(jsonl([{"text": text} for text in texts[::2]]))], tokenizer={"file": str(model)})
    pipeline.run(config, run)
    mine, first = (check_shards(one.artifacts, thorough=True) for one in (run, finished))
    assert mine.tokenizer == first.tokenizer
    assert 0 < mine.documents_out < first.documents_out
    assert (run.artifacts / "tokenizer" / "tokenizer.model").read_bytes() == model.read_bytes()


def test_a_killed_worker_is_noticed(make_run: MakeRun, small_crawl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def die(*_: object) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("data_prep.blocks.read.read_file", die)
    config, run = make_run([str(small_crawl)], workers=2)
    with pytest.raises(RunFailure, match="killed from outside"):
        pipeline.run(config, run)


def test_a_full_disk_is_a_failure_in_words(
    make_run: MakeRun, small_crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_prep.blocks.store.StoreDocuments.run", full)
    config, run = make_run([str(small_crawl)], input={"paths": [str(small_crawl)], "limit": 20})
    with pytest.raises(RunFailure, match="no space left"):
        pipeline.run(config, run)


def test_the_real_crawl_folder_end_to_end(make_run: MakeRun, crawl_folder: Path) -> None:
    config, run = make_run(
        [str(crawl_folder)], workers=2, tokenizer={"vocab_size": 1000}, extract={"extractor": "resiliparse"}
    )
    pipeline.run(config, run)
    card = check_shards(run.artifacts)
    assert card.documents_in == 465
    assert card.records_corrupt == 6
    assert card.documents_out >= 20
    assert len(card.inputs) == 21
    assert not [event for event in read_events(run) if event["event"] == "skipped_file"]


def test_wet_and_gzip_jsonl_together(make_run: MakeRun, tmp_path: Path) -> None:
    words = "The town has a river and a bridge that people of the place walk over with their friends every day. "
    wet = b"".join(record(f"Page {n}. {words * (n + 1)}".encode(), kind="conversion") for n in range(6))
    (tmp_path / "a.warc.wet.gz").write_bytes(gzip.compress(wet))
    row = {"text": f"Row. Mail jane@company.com. {words * 3}"}
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    config, run = make_run(
        [str(tmp_path / "*.gz")],
        filters={"gopher_repetition": None, "fineweb": None},
        dedup={"minhash": None, "exact": False},
        tokenizer={"vocab_size": 340},
        keep_intermediate=True,
    )
    pipeline.run(config, run)
    card = read_card(run.artifacts / "card.json")
    assert card.documents_in == 7
    assert [block.name for block in card.blocks][-2:] == ["pii", "tokenize"]
    text = "".join(path.read_text() for path in (run.path / "work" / "final").iterdir())
    assert "jane@company.com" not in text
