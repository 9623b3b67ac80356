"""The written pages: well-formed, self-contained, and safe against hostile text."""

import re
from typing import Any

import pytest
from lxml import etree

from kit.tokens.card import read_card, write_card
from reports.build import as_csv, build_report
from reports.document import Card, CardGroup, Column, Excerpt, Excerpts, Paragraph, Report, Section, Table
from reports.formats import duration, percent, plural, short_digest, size, whole
from reports.html import render_html
from reports.markdown import render_markdown

from .artifacts import HOSTILE
from .page import Page


@pytest.fixture
def page(chain_report: Any) -> Page:
    run, _ = chain_report
    return Page((run.report / "report.html").read_text())


@pytest.mark.parametrize(("fixture", "figures"), [("chain_report", 11), ("aligned_report", 20)])
def test_page_is_well_formed_and_loads_nothing(fixture: str, figures: int, request: pytest.FixtureRequest) -> None:
    run, _ = request.getfixturevalue(fixture)
    page = Page((run.report / "report.html").read_text())
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == figures
    assert not {"script", "iframe", "object", "link", "img"} & set(page.tags)


def test_style_loads_nothing(chain_report: Any) -> None:
    run, _ = chain_report
    text = (run.report / "report.html").read_text()
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    outside = {address for address in re.findall(r"https?://[^\s\"'<]+", text) if "www.w3.org" not in address}
    assert outside == set()


def test_crawled_text_is_shown_but_never_markup(page: Page) -> None:
    assert HOSTILE in "".join(page.text)
    assert "b" in page.tags  # the prompt of a sample is bold; the model's own <b> is text
    assert " says <b>bold</b>" in "".join(page.text)


def test_figures_are_well_formed_and_take_their_size_from_the_page(aligned_report: Any) -> None:
    run, _ = aligned_report
    figures = sorted((run.report / "figures").glob("*.svg"))
    assert len(figures) == 20
    for figure in figures:
        root = etree.fromstring(figure.read_bytes())
        assert root.get("aria-label")
        assert root.get("viewBox")
        assert root.get("width") is None


def test_a_figure_title_with_markup_is_escaped(runs: Any) -> None:
    run = runs.data_prep()
    path = run.artifacts / "card.json"
    card = read_card(path)
    blocks = [card.blocks[0].model_copy(update={"dropped": {'<img src="x">': 10}, "name": "<i>extract</i>"})]
    write_card(path, card.model_copy(update={"blocks": blocks}))
    build_report(run.path)
    page = Page((run.report / "report.html").read_text())
    assert not {"img", "i"} & set(page.tags)


def test_markdown_keeps_hostile_text_in_fences_and_cells() -> None:
    table = Table("t", "Title", (Column("a", "a|b"),), [["<b>x|y</b>"], ["&amp; ~~struck~~"]])
    sample = Excerpts("Samples", [Excerpt("t", "``` then <script>", "")])
    section = Section("s", "Section <x>", "", [table, sample, Paragraph("two\nlines", "notice")])
    card = Card("Label", "1", "a|b", before="0")
    text = render_markdown(Report("demo", "sub", "finished", [CardGroup("Group", [card])], [section]))
    assert r"| \<b\>x\|y\</b\> |" in text
    assert r"| \&amp; \~\~struck\~\~ |" in text
    assert "````text\n``` then <script>\n````" in text
    assert "> two\n> lines" in text
    assert r"| Label | 0 → **1** | a\|b |" in text


def test_html_of_an_empty_report() -> None:
    page = Page(render_html(Report("demo", "sub", "running", [], [])))
    assert "demo" in "".join(page.text)


def test_tables_print_absent_numbers_and_hide_unlabelled_columns() -> None:
    columns = (Column("a_seconds", "a", duration), Column("hidden"), Column("c", "c", whole))
    table = Table("t", "T", columns, [[None, "x", 1234], [90.0, "y", None]])
    assert table.shown() == [["not measured", "1,234"], ["1 min 30 s", "not measured"]]
    assert as_csv(table) == "a_seconds,hidden,c\n,x,1234\n90.0,y,\n"


def test_formats() -> None:
    assert (percent(0.0512), percent(0.871), percent(None)) == ("5.1\u00a0%", "87\u00a0%", "not measured")
    assert (plural(1, "step"), plural(2000, "step"), plural(2, "process")) == ("1 step", "2,000 steps", "2 processes")
    assert short_digest("sha256:" + "ab" * 32) == "abababababab"
    assert size(1536) == "1.5 KiB"
    assert whole("no number") == "not measured"
