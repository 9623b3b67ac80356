"""docs/papers.md: one row for every paper that the code cites, and no other."""

from __future__ import annotations

import re
from functools import cache

from .conftest import ROOMS, ROOT

PAPERS = ROOT / "docs" / "papers.md"
NAME = r"[A-Z][\w'’-]+"
# "Name et al. 2021", "Name & Name 2018", "Name and Name (2019)", "Name 2020".
CITATION = re.compile(rf"({NAME} et al\.|{NAME} (?:&|and) {NAME}|{NAME}),?\s+\(?((?:19|20)\d\d)\b")
# Words with a capital that stand before a year without being a person, beside names with digits (H100).
MONTHS = "January February March April May June July August September October November December"
NO_PERSON = f"In Since Before After From Until Of By Copyright Version {MONTHS}".split()


def citations_in(text: str) -> set[str]:
    """Short names, written alike: `Kudo & Richardson 2018`."""
    flat = re.sub(r"\s+(?:#\s+)?", " ", text)
    found = {(who.replace(" and ", " & "), year) for who, year in CITATION.findall(flat)}
    return {f"{who} {year}" for who, year in found if who not in NO_PERSON and not re.search(r"\d", who)}


@cache
def cited() -> dict[str, set[str]]:
    """Short name -> the files that cite it."""
    where: dict[str, set[str]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".yaml") and "sample" not in path.parts:
                for name in citations_in(path.read_text(encoding="utf-8")):
                    where.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return where


@cache
def rows() -> dict[str, tuple[str, list[str]]]:
    """Short name -> title, files."""
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAPERS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and re.search(r"(?:19|20)\d\d", line)
    ]
    assert len({row[0] for row in cells}) == len(cells), "a paper has two rows"
    return {name: (title, re.findall(r"`([^`]+)`", files)) for name, title, files in cells}


def test_citations_are_recognised_in_every_form() -> None:
    text = """As Shoeybi et al. 2019, section 3, and Kudo & Richardson (2018), say; Loshchilov and
    Hutter 2019 too, and Dao 2023, section 4. In 2021 the H100 2023 was new; Copyright 2024."""
    assert citations_in(text) == {
        "Shoeybi et al. 2019",
        "Kudo & Richardson 2018",
        "Loshchilov & Hutter 2019",
        "Dao 2023",
    }


def test_every_cited_paper_has_a_row() -> None:
    missing = {name: sorted(files) for name, files in cited().items() if name not in rows()}
    assert not missing, f"docs/papers.md has no row for {missing}"


def test_every_row_is_cited_where_it_says() -> None:
    for name, (title, files) in rows().items():
        assert name in cited(), f"docs/papers.md has {name}, and nothing cites it"
        assert title
        assert set(files) == cited()[name], f"{name} is cited in {sorted(cited()[name])}"


def test_rows_are_in_order() -> None:
    assert list(rows()) == sorted(rows())
