"""The tokenizer: deterministic, exact, and the same in both libraries."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from resiliparse.extract.html2text import extract_plain_text
from sentencepiece import SentencePieceProcessor
from tokenizers import normalizers

from data_prep import huggingface
from data_prep.config import TokenizerConfig
from data_prep.given_tokenizer import check_given_tokenizer, read_given_tokenizer
from data_prep.train_tokenizer import CHAT, END_ID, PAD_ID, RESERVED, Trained, sample_lines, train
from kit.errors import RunFailure, UserError

ODD = "a <|user|> </s> <0x41>\t\ttabs\n\n  two  spaces ½ ﬁ 日本 😀 12345 no-break\u00a0space"


@pytest.fixture(scope="module")
def texts(sample_pages: list[tuple[str, bytes]]) -> list[str]:
    pages = [page.split(b"\r\n\r\n", 1)[1].decode("utf-8", "replace") for _, page in sample_pages[:40]]
    return [text for page in pages if (text := extract_plain_text(page, main_content=True, alt_texts=False))]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest, texts: list[str]) -> tuple[str, bytes]:
    return request.param, train(TokenizerConfig(kind=request.param, vocab_size=600), lines(texts)).model


def lines(texts: list[str]) -> Iterator[str]:
    return iter(list(sample_lines(texts, 10**6, 10**6)))


def test_training_twice_gives_the_same_bytes(trained: tuple[str, bytes], texts: list[str]) -> None:
    kind, model = trained
    assert train(TokenizerConfig(kind=kind, vocab_size=600), lines(texts)) == Trained(model, 600)


def test_both_libraries_agree_and_text_comes_back(trained: tuple[str, bytes], texts: list[str]) -> None:
    kind, model = trained
    processor = SentencePieceProcessor(model_proto=model)
    converted = huggingface.convert(processor, kind)
    huggingface.check_same_ids(processor, converted, [*texts, ODD, "", " ", "\n"])
    chance = random.Random(0)
    parts = ["a", "ab", "-", "==", "..", "  ", "\n", "the ", "é", "日", "7", "<|end|>", "o", "he", "\t"]
    fuzz = ["".join(chance.choice(parts) * chance.choice([1, 2, 5]) for _ in range(20)) for _ in range(1000)]
    huggingface.check_same_ids(processor, converted, fuzz)


def test_reserved_pieces_have_their_ids_and_never_come_from_text(trained: tuple[str, bytes]) -> None:
    processor = SentencePieceProcessor(model_proto=trained[1])
    assert [processor.id_to_piece(index) for index in range(len(RESERVED))] == list(RESERVED)
    assert (processor.eos_id(), processor.pad_id()) == (END_ID, PAD_ID)
    assert min(processor.encode(" ".join(RESERVED))) >= len(RESERVED)


def test_loads_with_plain_transformers(trained: tuple[str, bytes], texts: list[str], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    kind, model = trained
    processor = SentencePieceProcessor(model_proto=model)
    huggingface.write(huggingface.convert(processor, kind), tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == processor.get_piece_size()
    for text in texts[:10]:
        ids = loaded(text)["input_ids"]
        assert ids == processor.encode(text)
        assert loaded.decode(ids) == text
    assert loaded.eos_token_id == END_ID
    assert loaded.pad_token_id == PAD_ID
    assert loaded("<|user|>hi<|end|>")["input_ids"][0] == RESERVED.index(CHAT[1])
    assert loaded(ODD, split_special_tokens=True)["input_ids"] == processor.encode(ODD)


def test_a_wrong_conversion_is_refused(trained: tuple[str, bytes], texts: list[str]) -> None:
    kind, model = trained
    processor = SentencePieceProcessor(model_proto=model)
    broken = huggingface.convert(processor, kind)
    broken.normalizer = normalizers.Lowercase()
    with pytest.raises(RunFailure, match="differs on a document"):
        huggingface.check_same_ids(processor, broken, texts[:3])


def test_a_page_with_the_mark_of_a_space_does_not_stop_a_run(trained: tuple[str, bytes]) -> None:
    kind, model = trained
    processor = SentencePieceProcessor(model_proto=model)
    huggingface.check_same_ids(processor, huggingface.convert(processor, kind), ["bars \u2581\u2582\u2583 \u2581"])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_too_little_text_is_said_in_words(kind: str, texts: list[str]) -> None:
    with pytest.raises(UserError, match="vocab_size: 32000") as caught:
        train(TokenizerConfig(kind=kind), lines(texts[:3]))
    assert re.search(r"at most \d+", caught.value.action)
    assert "allow_smaller" in caught.value.action


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_largest_vocabulary_that_a_small_text_gives(kind: str, texts: list[str]) -> None:
    config = TokenizerConfig(kind=kind, allow_smaller=True)
    trained = train(config, lines(texts[:12]))
    assert SentencePieceProcessor(model_proto=trained.model).get_piece_size() == trained.vocab_size
    assert trained.vocab_size % 64 == 0
    assert 300 <= trained.vocab_size < 32_000
    assert train(config, lines(texts[:12])) == trained
    with pytest.raises(UserError, match="cannot be learned"):
        train(TokenizerConfig(kind=kind, vocab_size=trained.vocab_size + 64), lines(texts[:12]))


@pytest.mark.parametrize("some", [[], ["a little text"]])
def test_a_text_too_small_for_any_vocabulary_is_an_error_all_the_same(some: list[str]) -> None:
    with pytest.raises(UserError, match="cannot be learned"):
        train(TokenizerConfig(kind="unigram", allow_smaller=True), some)


def test_the_sample_is_spread_and_long_lines_are_cut() -> None:
    assert list(sample_lines((str(number) for number in range(10)), 100, 34)) == ["0", "3", "6", "9"]
    assert sum(map(len, sample_lines(["x" * 10_000], 1, 1))) == 10_000


def test_a_tokenizer_that_is_there_is_taken_byte_by_byte(trained: tuple[str, bytes], tmp_path: Path) -> None:
    kind, model = trained
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model)
    assert read_given_tokenizer(TokenizerConfig(kind=kind, file=str(path))) == Trained(model, 600)
    check_given_tokenizer(TokenizerConfig())


def test_a_tokenizer_that_does_not_fit_is_refused(trained: tuple[str, bytes], tmp_path: Path) -> None:
    kind, model = trained
    path = tmp_path / "tokenizer.model"
    config = TokenizerConfig(kind=kind, file=str(path))
    with pytest.raises(UserError, match=r"tokenizer\.file: .*No such file"):
        check_given_tokenizer(config)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match="no SentencePiece model"):
        check_given_tokenizer(config)
    path.write_bytes(model.replace(b"<unk>", b"<UNK>"))
    with pytest.raises(UserError, match="its pieces begin with <UNK>"):
        check_given_tokenizer(config)
    path.write_bytes(model)
    other = "unigram" if kind == "bpe" else "bpe"
    with pytest.raises(UserError, match=f"it is {kind}, and tokenizer.kind is {other}"):
        check_given_tokenizer(TokenizerConfig(kind=other, file=str(path)))
