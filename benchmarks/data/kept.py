"""Do both sides keep the same? By address, by cluster of copies, and by the words of the texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.data.corpus import read_truth

_WORD = re.compile(r"\w+")


def compare(ours: Path, peer: Path, truth: Path | None) -> dict[str, Any]:
    """What two folders of JSON lines have in common.

    Args:
        ours: our final texts; the address is `url`.
        peer: datatrove's; the address is `metadata.url`.
        truth: the corpus's truth; with it, copies of one page count as one.
    """
    mine, theirs = texts(ours), texts(peer)
    both = mine.keys() & theirs.keys()
    overlaps = [token_f1(mine[url], theirs[url]) for url in sorted(both)]
    result = {
        "kept_ours": len(mine),
        "kept_peer": len(theirs),
        "kept_by_both": len(both),
        "agreement": _share(both, mine.keys() | theirs.keys()),
        "text_overlap": round(fmean(overlaps), 4) if overlaps else None,
    }
    if truth is not None:
        cluster = {row.url: row.cluster for row in read_truth(truth)}
        groups, peer_groups = ({cluster.get(url, url) for url in kept} for kept in (mine, theirs))
        result |= {"clusters_by_both": len(groups & peer_groups)}
        result |= {"cluster_agreement": _share(groups & peer_groups, groups | peer_groups)}
    return result


def _share(part: set[str], whole: set[str]) -> float | None:
    return round(len(part) / len(whole), 4) if whole else None


def texts(folder: Path) -> dict[str, str]:
    """Text by address."""
    return dict(_rows(folder))


def _rows(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield row["url"] if "url" in row else row["metadata"]["url"], row["text"]


def token_f1(one: str, other: str) -> float:
    """F1 of the two texts' words as multisets, lower-cased."""
    first, second = Counter(_WORD.findall(one.lower())), Counter(_WORD.findall(other.lower()))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 1.0
