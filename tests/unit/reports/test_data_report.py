"""The report of a data run: every number where it belongs, older cards without the newer ones, hostile text as text."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.tokens.card import BlockCard, DatasetCard, LanguageCard, SourceCard, read_card, write_card
from reports.build import build_report

from .artifacts import HOSTILE
from .artifacts import card as old_card
from .conftest import Runs
from .page import Page

NEW_KEYS = {
    "kept_fraction", "duplicates", "tokens", "text_bytes", "data_cpu_seconds", "pages_per_second_core",
}  # fmt: skip
Built = tuple[RunDirectory, dict[str, Any]]
FIGURES = ["clusters", "cpu", "funnel", "languages", "lengths", "reasons"]


def full_card(run_id: str) -> DatasetCard:
    """The card of artifacts.py with all that newer runs record."""
    card = old_card(run_id)
    read = BlockCard(
        name="read", documents_in=110, documents_out=100, bytes_in=2_200_000, bytes_out=2_000_000, cpu_seconds=0.5,
        dropped={"truncated_record": 3, "not_html": 6, "<odd>": 1},
    )  # fmt: skip
    extract, quality, minhash = card.blocks
    changed = [
        read,
        extract.model_copy(update={"cpu_seconds": 2.0}),
        quality.model_copy(update={"cpu_seconds": 0.05}),
        minhash.model_copy(update={"cpu_seconds": 0.0, "dropped": {"near_duplicate": 7, "url_duplicate": 3}}),
    ]
    languages_in = {"en": (60, 300_000), "de": (25, 120_000), "ja": (5, 20_000)}
    more: dict[str, Any] = {
        "blocks": changed,
        "documents_in": 110,
        "languages_in": {name: LanguageCard(documents=d, bytes=b) for name, (d, b) in languages_in.items()},
        "lengths_kept": {1024: 10, 2048: 40, 4096: 10},
        "lengths_dropped": {0: 2, 128: 20, 2048: 8},
        "duplicate_clusters": {2: 3, 5: 1},
        "sources": {
            "a.warc.gz": SourceCard(documents=50, bytes=300_000, tokens=89_000, dropped=40),
            HOSTILE: SourceCard(documents=10, bytes=30_000, tokens=10_000, dropped=10),
        },
        "step_cpu_seconds": {"clean": 3.0, "tokenize": 1.4},
    }
    return card.model_copy(update=more)


def sample(side: str, number: int) -> dict[str, Any]:
    block, reason = ("quality", "too_short") if side == "dropped" else ("", "")
    found = {"id": f"{side}-{number}", "file": "a.warc.gz", "url": f"http://example.org/{side}/{number}"}
    text = HOSTILE if number == 1 else f"Document {number} that was {side}."
    return {**found, "language": "en", "block": block, "reason": reason, "characters": 5000, "text": text}


def make_run(runs: Runs) -> RunDirectory:
    made = runs.data_prep()
    write_card(made.artifacts / "card.json", full_card(made.id))
    samples = {side: [sample(side, number) for number in range(20)] for side in ("kept", "dropped")}
    (made.artifacts / "samples.json").write_text(json.dumps({"schema_version": 1, **samples}))
    rates: dict[str, float] = {"documents": 40, "words": 20_000, "bytes": 100_000, "tokens": 30_000}
    rates |= {"tokens_per_word": 1.5, "tokens_per_byte": 0.3}
    peer = {"peer_tokens_per_word": 1.6, "peer_tokens_per_byte": 0.32}
    languages = {"en": {**rates, **peer}, HOSTILE: {**rates, "tokens_per_word": 2.5, "words": 500, **peer}}
    (made.artifacts / "fertility.json").write_text(json.dumps({"languages": languages, "peer": "gpt2"}))
    alike = [{"id": "x@1", "url": HOSTILE}, {"id": "x@7", "url": ""}]
    clusters = {"documents": 60, "sizes": {"2": 3, "5": 1}, "examples": [{"size": 5, "documents": alike}]}
    (made.artifacts / "clusters.json").write_text(json.dumps(clusters))
    with made.events_path.open("a") as file:
        event = {"time": "2026-01-02T03:04:20.000+00:00", "event": "skipped_file", "path": "b.zip", "reason": HOSTILE}
        file.write(json.dumps(event) + "\n")
    return made


@pytest.fixture
def run(runs: Runs) -> RunDirectory:
    return make_run(runs)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A run and the summary of its report; built once, so tests only look at it."""
    run = make_run(Runs(tmp_path_factory.mktemp("data") / "runs"))
    return run, build_report(run.path)


def table(run: RunDirectory, name: str) -> list[dict[str, str]]:
    with (run.report / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_summary_by_hand(built: Built) -> None:
    run, summary = built
    assert summary.keys() >= NEW_KEYS
    assert (summary["documents_in"], summary["documents_out"]) == (110, 60)
    assert summary["kept_fraction"] == pytest.approx(60 / 110)
    assert summary["duplicates"] == 10
    assert (summary["tokens"], summary["text_bytes"]) == (99_000, 330_000)
    assert summary["data_cpu_seconds"] == pytest.approx(4.4)
    assert summary["pages_per_second_core"] == pytest.approx(25.0)
    assert json.loads((run.report / "summary.json").read_text()) == summary


def test_the_page_shows_everything(built: Built) -> None:
    run, _ = built
    page = Page((run.report / "report.html").read_text())
    text = "".join(page.text)
    assert sorted(path.stem for path in (run.report / "figures").glob("*.svg")) == FIGURES
    assert len(page.ids) == len(set(page.ids))
    for words in (
        "40.0 ms of one core a page; the slowest block is “extract”",
        "2 of 3 languages kept",
        "Most kept documents have 1,024 to 8,192 characters",
        "7 near duplicates of 4 documents",
        "10 records not read; 3 of them damaged",
        "shorter than its header says",
        "1 input file skipped",
        "Tokens a word, against gpt2",
        "too_short (quality)",
        "en · 5,000 characters · http://example.org/dropped/19",
    ):
        assert words in text, words
    assert page.tags.count("blockquote") == 40 + 1  # the samples, and the example of the block `quality`


def test_hostile_text_stays_text(built: Built) -> None:
    run, _ = built
    page = Page((run.report / "report.html").read_text())
    text = "".join(page.text)
    assert not {"script", "odd", "img"} & set(page.tags)
    # Two samples, one source, one language, one skipped file, one example of a block, one cluster.
    assert text.count(HOSTILE) >= 7
    markdown = (run.report / "report.md").read_text()
    outside = "".join(markdown.split("```")[::2])
    assert "<script>" not in outside


def test_markdown_has_samples_tables_and_reasons(built: Built) -> None:
    run, _ = built
    text = (run.report / "report.md").read_text()
    for words in (
        "**20 dropped documents, chosen by chance**",
        "too_short (quality)\nDocument 3 that was dropped.",
        "| dropped | quality | too\\_short | en | 5,000 | http://example.org/dropped/7 |",
        "| a.warc.gz | 50 | 40 | 293.0 KiB | 89,000 | 90 % |",
        "| truncated\\_record | shorter than its header says | 3 | 2.7 % |",
        "✓ 1.50",
    ):
        assert words in text, words


def test_the_tables_hold_the_raw_numbers(built: Built) -> None:
    run, _ = built
    assert table(run, "languages")[-1] == {
        "language": "ja", "documents_in": "5", "bytes_in": "20000", "documents": "0", "bytes": "0",
    }  # fmt: skip
    assert [row["least_characters"] for row in table(run, "lengths")] == ["0", "128", "1024", "2048", "4096"]
    assert table(run, "clusters") == [{"documents": "2", "clusters": "3"}, {"documents": "5", "clusters": "1"}]
    assert table(run, "largest_clusters") == [{"documents": "5", "stays": HOSTILE, "others": "x@7"}]
    assert [row["step"] for row in table(run, "steps")] == ["clean", "tokenize"]
    assert len(table(run, "samples")) == 40
    funnel = {row["block"]: row for row in table(run, "funnel")}
    assert float(funnel["extract"]["documents_per_second"]) == pytest.approx(50.0)
    assert funnel["minhash"]["documents_per_second"] == ""  # too quick to be seen
    assert table(run, "fertility")[0]["peer_tokens_per_word"] == "1.6"


def test_an_older_run_has_what_it_recorded(runs: Runs) -> None:
    run = runs.data_prep()
    summary = build_report(run.path)
    assert summary["duplicates"] == 10
    assert (summary["pages_per_second_core"], summary["data_cpu_seconds"]) == (None, None)
    assert summary["kept_fraction"] == pytest.approx(0.6)
    figures = sorted(path.stem for path in (run.report / "figures").glob("*.svg"))
    assert figures == ["funnel", "languages", "reasons"]
    assert {row["seconds"] for row in table(run, "funnel")} == {"3.0", "1.5", "2.0"}
    assert not (run.report / "tables" / "samples.csv").exists()


def test_an_old_card_reads_and_a_new_one_comes_back(tmp_path: Path) -> None:
    new = [key for key in DatasetCard.model_fields if key in {"languages_in", "lengths_kept", "sources"}]
    old = json.loads(old_card("r").model_dump_json(exclude={*new, "lengths_dropped", "duplicate_clusters"}))
    for key in ("unknown_id", "byte_ids"):
        del old["tokenizer"][key]
    (tmp_path / "card.json").write_text(json.dumps(old))
    assert read_card(tmp_path / "card.json") == old_card("r")
    write_card(tmp_path / "new.json", full_card("r"))
    assert read_card(tmp_path / "new.json") == full_card("r")


def test_a_chain_keeps_the_samples_folded(runs: Runs, run: RunDirectory) -> None:
    chain = runs.bare("chain", stages=[runs.stage("data", run)])
    build_report(chain.path)
    text = (chain.report / "report.html").read_text()
    assert "<summary>20 kept documents, chosen by chance</summary>" in text
    assert "Document 3 that was kept" not in (chain.report / "report.md").read_text()


def test_damaged_samples_are_an_error_in_words(run: RunDirectory) -> None:
    (run.artifacts / "samples.json").write_text('{"kept": [')
    with pytest.raises(UserError, match=r"samples\.json is damaged"):
        build_report(run.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples.json", {"kept": 3, "dropped": [4, {}]}),
        ("clusters.json", {"examples": [3, {"size": "many", "documents": None}]}),
        ("fertility.json", {"languages": {"en": 3, "de": {"words": "many"}}, "peer": None}),
    ],
)
def test_files_of_another_shape_break_nothing(run: RunDirectory, name: str, content: dict[str, Any]) -> None:
    (run.artifacts / name).write_text(json.dumps(content))
    build_report(run.path)
    assert Page((run.report / "report.html").read_text()).tags


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths_kept": {0: 1}, "lengths_dropped": {}, "languages": {}, "languages_in": {}},
        {"lengths_kept": {1: 1}, "lengths_dropped": {2**24: 1}, "duplicate_clusters": {2: 1, 1_000_000: 2}},
        {
            "languages_in": {f"x{n}": LanguageCard(documents=n, bytes=n) for n in range(176)},
            "sources": {f"f{n}": SourceCard(documents=0, bytes=0) for n in range(300)},
            "step_cpu_seconds": {},
        },
        {"step_cpu_seconds": {"clean": 0.0}, "documents_in": 0, "blocks": [], "splits": {}},
    ],
)
def test_extremes_are_drawn(run: RunDirectory, changes: dict[str, Any]) -> None:
    path = run.artifacts / "card.json"
    write_card(path, read_card(path).model_copy(update=changes))
    build_report(run.path)
    page = Page((run.report / "report.html").read_text())
    assert page.tags.count("svg") >= 4
