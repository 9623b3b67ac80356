"""Fast encoding: SentencePiece's ids and nothing else, and shards that do not depend on how the work was cut."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from datatrove.data import Document
from resiliparse.extract.html2text import extract_plain_text
from sentencepiece import SentencePieceProcessor

from data_prep import encode
from data_prep.config import TokenizerConfig
from data_prep.encode import PlainEncoder, WordTableEncoder, build_encoder, check_sample, cuts_are_safe, fast_encoder
from data_prep.tokenize import EncodeDocuments, join_splits, text_hash
from data_prep.train_tokenizer import END_ID, sample_lines, train
from kit.errors import UserError
from kit.tokens.shards import Shard


@pytest.fixture(scope="module")
def texts(sample_pages: list[tuple[str, bytes]]) -> list[str]:
    pages = [page.split(b"\r\n\r\n", 1)[1].decode("utf-8", "replace") for _, page in sample_pages]
    return [text for page in pages if (text := extract_plain_text(page, main_content=True, alt_texts=False))]


def model_of(texts: list[str], kind: Literal["bpe", "unigram"] = "bpe", vocab_size: int = 2000) -> bytes:
    return train(TokenizerConfig(kind=kind, vocab_size=vocab_size), sample_lines(texts, 10**6, 10**6)).model


@pytest.fixture(scope="module")
def model(texts: list[str]) -> bytes:
    return model_of(texts)


@pytest.fixture(scope="module")
def processor(model: bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=model)


def fuzz(count: int) -> list[str]:
    chance = random.Random(0)
    parts = [
        "a",
        "ab",
        "-",
        "==",
        "..",
        "  ",
        "\n",
        "the ",
        " the",
        "é",
        "日本",
        "7",
        "<|end|>",
        "o",
        "he",
        "\t",
        ",",
        "'",
        '"',
    ]
    parts += [
        "\u2581",
        "\u00a0",
        "\r\n",
        "\x01",
        "\x00",
        "Word",
        " word,",
        "don't",
        "e\u0301",
        "😀",
        "ß",
        "_",
        " ",
        "I",
        "(x)",
    ]
    return ["".join(chance.choice(parts) * chance.choice([1, 1, 2, 5]) for _ in range(25)) for _ in range(count)]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_the_table_gives_the_same_ids(processor: SentencePieceProcessor, texts: list[str]) -> None:
    checked = [*texts, *fuzz(2000), *encode._ODD]
    expected = [np.array(processor.encode(text), np.uint16) for text in checked]
    assert same(PlainEncoder(processor).encode(checked), expected)
    table = WordTableEncoder(processor)
    assert same([ids for text in checked for ids in table.encode([text])], expected)
    assert same(table.encode(checked), expected)
    assert len(table._words) > 1000


def test_the_table_is_chosen_for_byte_pairs_only(processor: SentencePieceProcessor, texts: list[str]) -> None:
    assert fast_encoder(processor, "bpe", texts)
    unigram = SentencePieceProcessor(model_proto=model_of(texts[:20], "unigram", 500))
    assert not fast_encoder(unigram, "unigram", texts)
    assert isinstance(build_encoder(processor, True), WordTableEncoder)
    assert isinstance(build_encoder(processor, False), PlainEncoder)


def test_a_table_that_differs_is_not_chosen(
    processor: SentencePieceProcessor, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = encode.neighbours(processor) - {"th", "he", "n'", "l'", "--"}
    monkeypatch.setattr(encode, "neighbours", lambda _: broken)
    monkeypatch.setattr(encode, "_PARTS", re.compile(r" ?\w|[^\w]+"))
    assert not fast_encoder(processor, "bpe", texts)


def test_a_piece_with_a_space_or_a_line_end_inside_forbids_the_table() -> None:
    assert cuts_are_safe({"ab", "\u2581a", ",,"})
    assert not cuts_are_safe({"ab", "a\u2581"})
    assert not cuts_are_safe({"a\n"})


def test_a_full_table_is_emptied_and_long_words_are_not_kept(
    processor: SentencePieceProcessor, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_MOST_WORDS", 50)
    table, plain = WordTableEncoder(processor), PlainEncoder(processor)
    sizes = []
    for text in [*texts[:20], "z" * 500 + " short"]:
        assert same(table.encode([text]), plain.encode([text]))
        sizes.append(len(table._words))
    assert sizes[-1] <= 2
    assert max(map(len, table._words)) <= encode._LONGEST_KEPT


def test_the_check_sample_has_every_language() -> None:
    documents = [
        Document(text=f"text {n}", id=str(n), metadata={"language": "fr" if n == 777 else "en"}) for n in range(900)
    ]
    sample = check_sample(documents)
    assert len(sample) == 200
    assert "text 777" in sample
    assert check_sample([Document(text="no language", id="1")]) == ["no language"]


def documents(texts: list[str]) -> Iterator[Document]:
    for number, text in enumerate(texts):
        yield Document(text=text, id=str(number), metadata={})


def encoded(folder: Path, model: bytes, texts: list[str], tasks: int, fast: bool) -> Path:
    folder.mkdir()
    (folder / "model").write_bytes(model)
    step = EncodeDocuments(folder / "model", folder / "encoded", fast)
    share = -(-len(texts) // tasks)
    for rank in range(tasks):
        part = texts[rank * share : (rank + 1) * share]
        assert [document.text for document in step.run(documents(part), rank, tasks)] == part
    return folder / "encoded"


def test_shards_hold_every_document_with_its_end_token(
    tmp_path: Path, model: bytes, processor: SentencePieceProcessor, texts: list[str]
) -> None:
    folder = encoded(tmp_path / "one", model, texts, 1, True)
    shard = Shard(folder / "00000")
    for index, text in enumerate(texts):
        assert shard.document(index).tolist() == [*processor.encode(text), END_ID]


def test_the_splits_are_the_same_however_the_work_was_cut(tmp_path: Path, model: bytes, texts: list[str]) -> None:
    ways = [(1, False), (1, True), (3, True), (len(texts) + 2, True)]
    cards = []
    for number, (tasks, fast) in enumerate(ways):
        folder = tmp_path / str(number)
        cards.append(join_splits(encoded(folder, model, texts, tasks, fast), folder, 0.1))
    assert cards[1:] == cards[:-1]
    held_out = [text for text in texts if text_hash(text) <= int(0.1 * 2**64)]
    assert 0 < len(held_out) == cards[0]["validation"].documents
    assert cards[0]["validation"].text_bytes == sum(len(text.encode()) for text in held_out)
    assert cards[0]["train"].documents == len(texts) - len(held_out)


def test_one_side_is_never_empty(tmp_path: Path, model: bytes) -> None:
    cards = join_splits(encoded(tmp_path / "two", model, ["one text", "another text"], 2, True), tmp_path / "two", 1e-9)
    assert [card.documents for card in cards.values()] == [1, 1]
    for number, few in enumerate([[], ["alone"], ["twice", "twice"]]):
        with pytest.raises(UserError, match="different document"):
            join_splits(encoded(tmp_path / f"few{number}", model, few, 1, True), tmp_path / "none", 0.1)
