"""Near-duplicate removal: what it finds, what of it is right, and how fast it is, beside datatrove's.

`python -m benchmarks.data.dedup --documents JSONL --truth TSV`. Documents: a JSON object a line with `url` and `text`.
Truth: url, cluster, kind, sha1, tab-separated; copies of a cluster's `orig`. Similarity is the Jaccard similarity of
the sets of word 5-grams of the two texts, computed exactly.

* recall: of the injected pairs (an original and its copy) of a class of similarity, those that are reported as a pair,
  or of which one stays for the other, or the same document for both.
* precision: of all reported pairs, those with a similarity of 0.7 or more; precision of drops: the same of the pairs
  (document that goes, document that stays instead).
* speed ratio: CPU seconds of datatrove's four steps (14 buckets of 8, spaCy's words, its defaults but for SHA-1) over
  ours, on the first documents, in alternation; the median.
* peer: the same of datatrove's run on some of the documents, and `ours_on_the_same`.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document

from benchmarks.data.dedup_chains import Found, datatrove, ours

Chain = Callable[[list[Document], Path], float]

CLASSES = {">=0.9": (0.9, 1.01), "0.8-0.9": (0.8, 0.9), "0.7-0.8": (0.7, 0.8)}
RIGHT = 0.7
_WORD = re.compile(r"[^\W_]+")
_NGRAM = 5


def measure(
    documents_jsonl: Path, truth: Path | None = None, *, peer_documents: int = 300, rounds: int = 3, judged: int = 1500
) -> dict[str, Any]:
    """Quality over all documents, and speed and quality beside datatrove's over some of them.

    Args:
        documents_jsonl: `url` and `text` a line.
        truth: None leaves the recall out.
        peer_documents: over so many documents the speed is compared; 0 leaves the peer out.
        rounds: alternations of ours and the peer.
        judged: over so many documents, those with copies first, the peer's quality is measured; 0 leaves that out.
    """
    documents = read_documents(documents_jsonl)
    injected = list(_injected(truth)) if truth else []
    result = {"documents": len(documents), **_quality(ours, Found.by_us, documents, injected)}
    if peer_documents:
        try:
            result.update(_speeds(documents[:peer_documents], rounds))
            if judged:
                some = _with_copies_first(documents, injected)[:judged]
                result["peer"] = _quality(datatrove, Found.by_datatrove, some, injected)
                result["ours_on_the_same"] = _quality(ours, Found.by_us, some, injected)
        except Exception as error:  # whatever the peer's installation lacks
            result.update({"speed_ratio": None, "peer_error": f"{type(error).__name__}: {error}"})
    return result


def _quality(
    chain: Chain, read: Callable[[Path, int], Found], documents: list[Document], injected: list[tuple[str, str]]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        seconds = chain(documents, Path(folder))
        found = read(Path(folder), len(documents))
    sets = Shingles([document.text for document in documents])
    result: dict[str, Any] = {
        "dedup_precision": _share([sets.similarity(a, b) >= RIGHT for a, b in found.pairs]),
        "dedup_drop_precision": _share([sets.similarity(a, b) >= RIGHT for a, b in found.stays.items()]),
        "reported_pairs": len(found.pairs),
        "documents_per_second": round(len(documents) / seconds, 1),
    }
    return {**result, **_recall(documents, injected, found, sets)} if injected else result


def read_documents(path: Path) -> list[Document]:
    """The documents of a JSONL file."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Document(text=row["text"], id=str(i), metadata={"url": row["url"]}) for i, row in enumerate(rows)]


class Shingles:
    """Exact similarities, each text's set of n-grams made when it is first asked for."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._sets: dict[int, set[int]] = {}

    def similarity(self, first: int, second: int) -> float:
        """The Jaccard similarity of two texts."""
        a, b = self._of(first), self._of(second)
        return len(a & b) / len(a | b) if a or b else 1.0

    def _of(self, place: int) -> set[int]:
        if place not in self._sets:
            words = _WORD.findall(self._texts[place].lower())
            starts = range(max(1, len(words) - _NGRAM + 1)) if words else range(0)
            self._sets[place] = {hash(tuple(words[i : i + _NGRAM])) for i in starts}
        return self._sets[place]


def _recall(documents: list[Document], injected: list[tuple[str, str]], found: Found, sets: Shingles) -> dict[str, Any]:
    by_url = {str(document.metadata["url"]): i for i, document in enumerate(documents)}
    hits: dict[str, list[bool]] = {name: [] for name in CLASSES}
    for first, second in injected:
        if first in by_url and second in by_url:
            places = by_url[first], by_url[second]
            similarity = sets.similarity(*places)
            for name, (low, high) in CLASSES.items():
                if low <= similarity < high:
                    hits[name].append(found.finds(*places))
    return {
        "dedup_recall": {name: _share(values) for name, values in hits.items()},
        "injected_pairs": {name: len(values) for name, values in hits.items()},
    }


def _with_copies_first(documents: list[Document], injected: list[tuple[str, str]]) -> list[Document]:
    wanted = {url for pair in injected for url in pair}
    return sorted(documents, key=lambda document: document.metadata["url"] not in wanted)


def _injected(truth: Path) -> Iterator[tuple[str, str]]:
    """(address of the original, address of its copy)."""
    rows = [line.split("\t") for line in truth.read_text("utf-8").splitlines() if line]
    originals = {cluster: url for url, cluster, kind, _ in rows if kind == "orig"}
    for url, cluster, kind, _ in rows:
        if kind != "orig" and cluster in originals:
            yield originals[cluster], url


def _speeds(documents: list[Document], rounds: int) -> dict[str, Any]:
    seconds = [(_timed(ours, documents), _timed(datatrove, documents)) for _ in range(rounds + 1)][1:]  # less a warm-up
    ratios = [theirs / mine for mine, theirs in seconds]
    return {
        "speed_ratio": round(statistics.median(ratios), 2),
        "speed_ratio_spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "peer_documents_per_second": round(len(documents) / statistics.median(s for _, s in seconds), 1),
    }


def _timed(chain: Chain, documents: list[Document]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return chain(documents, Path(folder))


def _share(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def main() -> None:
    """Measure, then print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--peer-documents", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--judged", type=int, default=1500)
    args = parser.parse_args()
    found = measure(
        args.documents, args.truth, peer_documents=args.peer_documents, rounds=args.rounds, judged=args.judged
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
