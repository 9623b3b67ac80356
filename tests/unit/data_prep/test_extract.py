"""The extraction block: text from HTML, and pages that hang or crash the extractor."""

import os
import signal
import threading
import time

import psutil
import pytest
from datatrove.data import Document

from data_prep.blocks import extract
from data_prep.blocks.config import ExtractConfig
from data_prep.blocks.extract import ExtractText, tidy
from data_prep.ledger import REASON

PARAGRAPH = "<p>The quick brown fox jumps over the lazy dog, and then it does so once more for good measure.</p>"
PAGE = f"<html><body><nav><a href='/'>Home</a></nav><article><h1>Foxes</h1>{PARAGRAPH * 6}</article></body></html>"


def page(html: str) -> Document:
    return Document(text=html, id="x", metadata={"kind": "response"})


@pytest.mark.parametrize("extractor", ["fast", "trafilatura", "resiliparse"])
def test_extracts_the_main_text(extractor: str) -> None:
    pages = [page(PAGE), page("<html></html>")]
    documents = list(ExtractText(ExtractConfig(extractor=extractor)).run(iter(pages)))
    assert len(documents) == 1
    assert "quick brown fox" in documents[0].text
    assert "<p>" not in documents[0].text
    assert pages[1].metadata[REASON] == "no_text"


def test_leaves_text_as_text() -> None:
    given = Document(text="a < b\r\n\x00and <p> is a tag\u2581 ", id="x", metadata={"kind": "conversion"})
    (document,) = ExtractText(ExtractConfig()).run(iter([given]))
    assert document.text == "a < b\nand <p> is a tag"
    assert tidy("\ud800x") == "x"


def _misbehave(html: str) -> str:
    if "hang" in html:
        time.sleep(60)
    if "crash" in html:
        os._exit(3)
    if "raise" in html:
        raise RecursionError("too deep")
    return html


def test_a_page_that_hangs_or_crashes_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extract._EXTRACTORS, "trafilatura", _misbehave)
    before = set(psutil.Process().children(recursive=True))
    pages = [page(word) for word in ("one", "hang", "two", "crash", "raise", "three")]
    kept = list(ExtractText(ExtractConfig(extractor="trafilatura", timeout_seconds=1.0)).run(iter(pages)))
    assert [document.text for document in kept] == ["one", "two", "three"]
    assert [document.metadata.get(REASON) for document in pages] == [
        None,
        "extraction_timeout",
        None,
        "extraction_crash",
        "extraction_error",
        None,
    ]
    assert set(psutil.Process().children(recursive=True)) <= before


def test_fast_runs_here_and_a_late_page_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "with_fast", _misbehave)
    monkeypatch.setitem(extract._EXTRACTORS, "fast", _misbehave)
    handler = signal.getsignal(signal.SIGALRM)
    children = set(psutil.Process().children(recursive=True))
    pages = [page(word) for word in ("one", "hang", "raise", "two")]
    kept = []
    for document in ExtractText(ExtractConfig(timeout_seconds=0.3)).run(iter(pages)):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0  # no alarm while the page is elsewhere
        assert set(psutil.Process().children(recursive=True)) <= children
        kept.append(document.text)
    assert kept == ["one", "two"]
    assert [document.metadata.get(REASON) for document in pages] == [
        None,
        "extraction_timeout",
        "extraction_error",
        None,
    ]
    assert signal.getsignal(signal.SIGALRM) == handler


def test_fast_works_in_a_thread_where_there_are_no_alarms() -> None:
    texts: list[str] = []
    block = ExtractText(ExtractConfig())
    worker = threading.Thread(target=lambda: texts.extend(document.text for document in block.run(iter([page(PAGE)]))))
    worker.start()
    worker.join()
    assert "quick brown fox" in texts[0]
