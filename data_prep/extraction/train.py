"""Trains the block classifier: `python -m data_prep.extraction.train --gold DIR [--gold DIR ...] [--distil WARC]`.

Labels come from gold texts; where there are only segments, and for pages without any gold, from what trafilatura
(Barbaresi 2021) extracts, corrected by the segments. Pages are split by host for the figures that it prints; the model
that is written has seen them all. docs/extraction.md says what the shipped model was trained on.
"""

from __future__ import annotations

import argparse
import json
import warnings
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_prep.extraction.features import Matrix, block_features
from data_prep.extraction.gold import GoldPage, decode, gold_sets, read_gold, set_f1
from data_prep.extraction.labels import label, tokens
from data_prep.extraction.model import MODEL, Classifier, Network
from data_prep.extraction.page import lay_out
from data_prep.extraction.scan import Page, scan
from data_prep.extraction.surroundings import surroundings

HIDDEN, EPOCHS, PENALTY, LEARNING_RATE, BATCH = 32, 6, 1e-3, 2e-3, 512
BLOCKS_A_PAGE = 160  # a sample, so that long pages do not rule
MOST_WEIGHT = 30.0
LEAST_ORACLE = 0.8  # pages whose blocks cannot give the gold text teach nothing
THRESHOLD = 0.0
_DISTILLED_PAGES = 400


@dataclass
class Example:
    """A page with its labels.

    Attributes:
        wanted: Which blocks are main text.
        weights: Of the blocks; errors count relative to the length of the page's main text, as in F1.
        fold: 0 or 1, by host.
    """

    set: str
    gold: GoldPage
    page: Page
    features: Matrix
    wanted: np.ndarray
    weights: np.ndarray
    fold: int


def main() -> None:
    """Train, print the cross-validated figures as JSON, write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gold", type=Path, action="append", required=True, help="a folder of gold sets")
    parser.add_argument("--distil", type=Path, action="append", default=[], help="a WARC file of further pages")
    parser.add_argument("--weight", action="append", default=[], help="SET=NUMBER: weight of a set's pages")
    parser.add_argument("--out", type=Path, default=MODEL)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")  # that six epochs are no convergence is intended
    weights = {name: float(value) for name, _, value in (item.partition("=") for item in arguments.weight)}
    examples = [example for folder in arguments.gold for example in _gold_examples(folder, weights)]
    for path in arguments.distil:
        examples += _distilled(path, weights.get("distil", 0.5))
    print(json.dumps({"cross_validated": _cross_validate(examples)}), flush=True)
    save(train([example for example in examples if example.weights.any()]), arguments.out)


def save(classifier: Classifier, path: Path) -> None:
    """Write the arrays; 16 bits are enough and halve the file."""
    arrays: dict[str, Any] = {"threshold": np.float32(classifier.threshold)}
    for name, network in zip(("first0", "first1", "second"), (*classifier.first, classifier.second), strict=True):
        arrays |= {f"{name}.{part}": value.astype(np.float16) for part, value in vars(network).items()}
    np.savez_compressed(path, **arrays)


def train(examples: list[Example]) -> Classifier:
    """Two first networks, each on half of the pages, and a second that sees first scores of pages they did not."""
    halves = [examples[0::2], examples[1::2]]
    networks = [_fit([item.features for item in half], half, seed) for seed, half in enumerate(halves, start=1)]
    rows = []
    for number, item in enumerate(examples):
        first = networks[1 - number % 2](item.features)
        rows.append(np.hstack([surroundings(item.page, item.page.spans(), first), item.features]))
    return Classifier(tuple(networks), _fit(rows, examples, 3), THRESHOLD)


def _fit(rows: list[Matrix], examples: list[Example], seed: int) -> Network:
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(seed)
    parts = [_sample(matrix, item, random) for matrix, item in zip(rows, examples, strict=True)]
    matrix, wanted, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    weights = np.minimum(weights / weights.mean(), MOST_WEIGHT)
    mean, spread = matrix.mean(0), matrix.std(0) + 0.05
    network = MLPClassifier(
        (HIDDEN,), alpha=PENALTY, batch_size=BATCH, max_iter=EPOCHS, learning_rate_init=LEARNING_RATE, random_state=seed
    )
    network.fit((matrix - mean) / spread, wanted, sample_weight=weights)
    hidden = network.coefs_[0] / spread[:, None]
    bias = network.intercepts_[0] - mean @ hidden
    arrays = (hidden, bias, network.coefs_[1][:, 0], network.intercepts_[1])
    return Network(*(array.astype(np.float32) for array in arrays))


def _sample(matrix: Matrix, item: Example, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    blocks = len(matrix)
    if blocks <= BLOCKS_A_PAGE:
        return matrix, item.wanted, item.weights
    chosen = np.sort(random.choice(blocks, BLOCKS_A_PAGE, replace=False))
    return matrix[chosen], item.wanted[chosen], item.weights[chosen] * (blocks / BLOCKS_A_PAGE)


def _cross_validate(examples: list[Example]) -> dict[str, float]:
    """F1 of every set, each half of the hosts by a model that has seen only the other half."""
    results: dict[str, tuple[list[GoldPage], list[str]]] = defaultdict(lambda: ([], []))
    for fold in (0, 1):
        model = train([item for item in examples if item.fold != fold and item.weights.any()])
        for item in examples:
            if item.fold == fold and item.set != "distil":
                results[item.set][0].append(item.gold)
                results[item.set][1].append(lay_out(item.page, model.keeps(item.page)))
    return {name: round(set_f1(pages, texts), 4) for name, (pages, texts) in results.items()}


def _gold_examples(folder: Path, weights: dict[str, float]) -> list[Example]:
    found = []
    for name in gold_sets(folder):
        for page in read_gold(folder, name):
            found.append(_example(name, page, page.gold, weights.get(name, 1.0)))
    return found


def _distilled(path: Path, weight: float) -> list[Example]:
    """Pages evenly from the whole file."""
    with open(path, "rb") as stream:
        records = ArchiveIterator(stream, record_types=WarcRecordType.response)
        pages = [(str(record.headers["WARC-Target-URI"]), record.reader.read()) for record in records]
    step = max(1, len(pages) // _DISTILLED_PAGES)
    golds = [GoldPage(url, url, decode(body), None) for url, body in pages[::step]]
    return [_example("distil", gold, None, weight) for gold in golds]


def _example(name: str, gold: GoldPage, text: str | None, weight: float) -> Example:
    page = scan(gold.html)
    wanted = np.array(label(page.texts, _by_trafilatura(gold.html) if text is None else text)) > 0.5
    sizes = np.array([len(tokens(block)) + 1 for block in page.texts], dtype=np.float64)
    weights = sizes**0.8
    weights *= weight / (np.sqrt(max(weights.sum(), 1)) * np.sqrt((sizes * wanted).sum() + 20))
    if text is None:
        _correct(page, gold, wanted, weights)
    elif (
        set_f1([gold], ["\n".join(block for block, kept in zip(page.texts, wanted, strict=True) if kept)])
        < LEAST_ORACLE
    ):
        weights[:] = 0
    features = block_features(page, page.spans()) if page.texts else np.zeros((0, 0), dtype=np.float32)
    host = urlsplit(gold.url).hostname or gold.id
    if host.endswith((".invalid", "fakehost")):
        host = gold.id
    return Example(name, gold, page, features, wanted, weights, zlib.crc32(host.encode()) & 1)


def _correct(page: Page, gold: GoldPage, wanted: np.ndarray, weights: np.ndarray) -> None:
    """People's segments overrule trafilatura: the block that has one is, or is not, main text, and counts more."""
    for segments, value in ((gold.must_have, True), (gold.must_not, False)):
        for segment in segments:
            flat = " ".join(segment.split())
            for number, block in enumerate(page.texts):
                if flat in block and (value or len(block) < 4 * len(flat)):
                    wanted[number] = value
                    weights[number] *= 3


def _by_trafilatura(html: str) -> str:
    from trafilatura import extract

    return extract(html, include_comments=False, include_tables=True) or ""


if __name__ == "__main__":
    main()
