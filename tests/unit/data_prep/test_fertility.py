"""Fertility: counts that can be checked by hand, a sample that depends on the texts alone, and words for bad files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from datatrove.data import Document
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_prep import fertility
from data_prep.config import TokenizerConfig
from data_prep.fertility import check_compare_with, measure_fertility
from data_prep.train_tokenizer import train
from kit.errors import UserError

LINE = "the quick brown fox jumps over the lazy dog, and the dog sleeps on"


@pytest.fixture(scope="module")
def processor() -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=train(TokenizerConfig(vocab_size=330), [LINE] * 40).model)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary in GPT-2's files, and the same as a tokenizer.json."""
    folder = tmp_path_factory.mktemp("peer") / "gpt2-like"
    folder.mkdir()
    peer = Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator([LINE] * 40, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    peer.model.save(str(folder))
    (folder / "json").mkdir()
    peer.enable_truncation(2)
    peer.save(str(folder / "json" / "tokenizer.json"))
    return folder


def documents(count: int, language: str = "en") -> list[Document]:
    return [Document(text=f"{LINE} {n}", id=str(n), metadata={"language": language}) for n in range(count)]


def test_counts_by_language(processor: SentencePieceProcessor) -> None:
    texts = [
        *documents(3),
        Document(text="日本語です fox", id="x", metadata={"language": "ja"}),
        Document(text="a b", id="y"),
    ]
    found = measure_fertility(processor, texts)
    assert list(found.languages) == ["en", "ja"]
    english, japanese = found.languages["en"], found.languages["ja"]
    assert (english.documents, english.words) == (4, 3 * 15 + 2)
    assert english.bytes == 3 * len(f"{LINE} 0") + 3
    assert english.tokens == 3 * len(processor.encode(f"{LINE} 0")) + len(processor.encode("a b"))
    assert english.tokens_per_word == english.tokens / english.words
    assert english.tokens_per_byte == english.tokens / english.bytes
    assert (japanese.words, japanese.bytes) == (6, 19)
    assert (found.peer, english.peer_tokens_per_word) == (None, None)


def test_the_sample_depends_on_the_texts_alone(processor: SentencePieceProcessor) -> None:
    many = documents(fertility.SAMPLED_DOCUMENTS + 100)
    other = many[:]
    random.Random(0).shuffle(other)
    found = measure_fertility(processor, many)
    assert found == measure_fertility(processor, other)
    assert found.languages["en"].documents == fertility.SAMPLED_DOCUMENTS
    assert found.languages["en"].bytes < sum(len(one.text) for one in many)


def test_both_forms_of_a_vocabulary_count_alike(processor: SentencePieceProcessor, vocabulary: Path) -> None:
    files = measure_fertility(processor, documents(5), str(vocabulary))
    one = measure_fertility(processor, documents(5), str(vocabulary / "json" / "tokenizer.json"))
    assert (files.peer, one.peer) == ("gpt2-like", "json")
    assert one.languages == files.languages
    row = files.languages["en"]
    assert row.peer_tokens_per_byte is not None and row.peer_tokens_per_word is not None
    assert 0 < row.peer_tokens_per_byte < 1
    assert row.peer_tokens_per_word * row.words == pytest.approx(row.peer_tokens_per_byte * row.bytes)
    peer = fertility.read_peer(str(vocabulary))
    assert peer.decode(peer.encode(LINE).ids) == LINE


@pytest.mark.parametrize("damage", ["absent", "empty folder", "no merges", "damaged", "damaged json", "a text"])
def test_a_vocabulary_that_cannot_be_read_is_said_in_words(tmp_path: Path, vocabulary: Path, damage: str) -> None:
    path = tmp_path / "peer"
    if damage != "absent":
        path.mkdir()
    if damage in ("no merges", "damaged"):
        (path / "vocab.json").write_bytes((vocabulary / "vocab.json").read_bytes())
    if damage == "damaged":
        (path / "merges.txt").write_text("#version: 0.2\nnothing like this\nat all\n")
    if damage == "damaged json":
        (path / "tokenizer.json").write_text("{")
    if damage == "a text":
        path = path / "words.txt"
        path.write_text("hello\n")
    with pytest.raises(UserError, match=r"tokenizer\.compare_with: "):
        check_compare_with(TokenizerConfig(compare_with=str(path)))


def test_a_good_vocabulary_or_none_passes(vocabulary: Path) -> None:
    check_compare_with(TokenizerConfig())
    check_compare_with(TokenizerConfig(compare_with=str(vocabulary)))
