"""Encoding text into tokens: the table of words against SentencePiece, the same model and the same texts.

A 32,000-piece byte-pair model is trained on a part of the texts. The texts are cut into slices; both sides encode each
slice in turn, and process time counts. The table starts empty, so `encode_ratio` has its warming up in it;
`warm_ratio` is that of the last quarter of the slices. `identical` compares all ids. The last line is JSON.

    python -m benchmarks.data.encode                    the texts of ../shared/data/text, or else the embedded sample
    python -m benchmarks.data.encode --texts FILE...    JSON lines with a `text`; plain or .xz
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from sentencepiece import SentencePieceProcessor

from data_prep.config import TokenizerConfig
from data_prep.encode import BATCH_CHARACTERS, Encoder, Ids, PlainEncoder, WordTableEncoder, fast_encoder
from data_prep.train_tokenizer import sample_lines, train

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT.parent / "shared" / "data" / "text"
DEFAULT = [TEXTS / "openwebtext_1000.jsonl.xz", TEXTS / "standardebooks.jsonl.xz"]
SAMPLE = ROOT / "data_prep" / "sample" / "docs.warc.gz"
SLICES = 16
TRAINED_BYTES = 8 * 2**20
LONGEST = 20_000  # characters; books are cut into pieces of the size of pages


def read_texts(paths: list[Path]) -> list[str]:
    """All texts in an order of no meaning, so that slices are alike."""
    texts = list(_lines(paths)) if paths else list(_sample())
    cut = [text[start : start + LONGEST] for text in texts for start in range(0, len(text), LONGEST)]
    random.Random(0).shuffle(cut)
    return cut


def _lines(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]


def _sample() -> Iterator[str]:
    with SAMPLE.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            text = extract_plain_text(record.reader.read().decode("utf-8", "replace"), main_content=True)
            if text:
                yield text


def measure(texts: list[str]) -> dict[str, Any]:
    """Both sides over the slices, alternating which goes first."""
    total = sum(len(text.encode()) for text in texts)
    config = TokenizerConfig(allow_smaller=True)
    trained = train(config, sample_lines(texts, total, TRAINED_BYTES))
    processor = SentencePieceProcessor(model_proto=trained.model)
    plain, table = PlainEncoder(processor), WordTableEncoder(processor)
    identical = fast_encoder(processor, config.kind, texts[:200])
    seconds: list[tuple[float, float]] = []
    for number in range(SLICES):
        part = texts[number::SLICES]
        spent: dict[int, float] = {}
        ids: dict[int, list[Ids]] = {}
        for side in ((0, 1), (1, 0))[number % 2]:
            began = time.process_time()
            ids[side] = _encode((plain, table)[side], part)
            spent[side] = time.process_time() - began
        identical &= all(np.array_equal(a, b) for a, b in zip(ids[0], ids[1], strict=True))
        seconds.append((spent[0], spent[1]))
    return _result(seconds, total, trained.vocab_size, identical)


def _encode(encoder: Encoder, texts: list[str]) -> list[Ids]:
    """As EncodeDocuments does it, a batch at a time."""
    found: list[Ids] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if sum(map(len, batch)) >= BATCH_CHARACTERS:
            found += encoder.encode(batch)
            batch = []
    return found + encoder.encode(batch)


def _result(seconds: list[tuple[float, float]], total: int, vocab_size: int, identical: bool) -> dict[str, Any]:
    plain, table = (sum(pair[side] for pair in seconds) for side in (0, 1))
    warm = seconds[-SLICES // 4 :]
    return {
        "encode_ratio": round(plain / table, 2),
        "warm_ratio": round(sum(pair[0] for pair in warm) / sum(pair[1] for pair in warm), 2),
        "identical": identical,
        "megabytes": round(total / 1e6, 1),
        "vocab_size": vocab_size,
        "sentencepiece_mb_per_second": round(total / 1e6 / plain, 2),
        "table_mb_per_second": round(total / 1e6 / table, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", default=[path for path in DEFAULT if path.is_file()])
    print(json.dumps(measure(read_texts(parser.parse_args().texts))))


if __name__ == "__main__":
    main()
