"""Extraction side by side: `python -m benchmarks.data.extraction [--gold DIR]`.

Per set of gold pages (data_prep/extraction/gold.py says what a folder holds) the F1 of our extractor, of trafilatura
(fast=True, include_comments=False, include_tables=True) and of resiliparse (main_content=True), and the process CPU
time of each on the same decoded pages, in turns.

Definitions. Token F1: of the bags of lower-case words, of characters in scripts without spaces, page by page, then the
mean; where the gold is HTML, its text is all text that our scanner finds in it, the same for every extractor. Segment
F1: over all segments of a set, a must-have that is there is found, one that is not is missed, a must-not that is there
is wrong; white space folded. `mean` is over sets. MB are those of the pages as UTF-8.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.blocks.extract import with_fast, with_resiliparse, with_trafilatura
from data_prep.extraction.gold import GoldPage, gold_sets, read_gold, set_f1

GOLD = Path(__file__).parents[3] / "shared" / "data" / "extraction_gold"
EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "fast": with_fast,
    "trafilatura": with_trafilatura,
    "resiliparse": with_resiliparse,
}
_TURN = 20  # pages an extractor handles before the next one's turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gold", type=Path, default=GOLD, help="a folder of gold sets")
    print(json.dumps(measure(parser.parse_args().gold)))


def measure(gold: Path) -> dict[str, Any]:
    """F1 by set and the ratio of speeds; prints a line a set and extractor as it goes."""
    for extract in EXTRACTORS.values():
        extract("<p>warm-up</p>")
    f1: dict[str, dict[str, float]] = {name: {} for name in EXTRACTORS}
    seconds = dict.fromkeys(EXTRACTORS, 0.0)
    megabytes = 0.0
    for name in gold_sets(gold):
        pages = list(read_gold(gold, name))
        texts, spent = _extract_in_turns(pages)
        size = sum(len(page.html.encode("utf-8", "replace")) for page in pages) / 1e6
        megabytes += size
        for extractor in EXTRACTORS:
            f1[extractor][name] = round(set_f1(pages, texts[extractor]), 4)
            seconds[extractor] += spent[extractor]
            took = f"CPU {spent[extractor]:6.2f} s  {size / spent[extractor]:5.2f} MB/s"
            print(f"{name:12} {extractor:12} F1 {f1[extractor][name]:.4f}  {took}")
    return _summary(f1, seconds, megabytes)


def _summary(f1: dict[str, dict[str, float]], seconds: dict[str, float], megabytes: float) -> dict[str, Any]:
    means = {name: round(sum(sets.values()) / max(len(sets), 1), 4) for name, sets in f1.items()}
    return {
        "extraction_f1": f1["fast"],
        "extraction_f1_trafilatura": f1["trafilatura"],
        "extraction_f1_resiliparse": f1["resiliparse"],
        "mean": means["fast"],
        "mean_trafilatura": means["trafilatura"],
        "mean_resiliparse": means["resiliparse"],
        "megabytes_per_second": {name: round(megabytes / max(spent, 1e-9), 2) for name, spent in seconds.items()},
        "speed_ratio": round(seconds["trafilatura"] / max(seconds["fast"], 1e-9), 2),
    }


def _extract_in_turns(pages: list[GoldPage]) -> tuple[dict[str, list[str]], dict[str, float]]:
    texts: dict[str, list[str]] = {name: [] for name in EXTRACTORS}
    spent = dict.fromkeys(EXTRACTORS, 0.0)
    for start in range(0, len(pages), _TURN):
        for name, extract in EXTRACTORS.items():
            began = time.process_time()
            texts[name] += [extract(page.html) or "" for page in pages[start : start + _TURN]]
            spent[name] += time.process_time() - began
    return texts, spent


if __name__ == "__main__":
    main()
