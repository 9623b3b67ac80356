"""Fertility: how many tokens the tokenizer takes for a word and for a byte, by language, beside a GPT-2 vocabulary's.

A word is a run of letters and digits, or one ideograph or kana, so that languages without spaces compare with others as
far as that goes (Thai, Lao and Khmer do not). Fewer tokens a byte is cheaper training and a longer reach of attention.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from datatrove.data import Document
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_prep.config import TokenizerConfig
from data_prep.tokenize import text_hash
from kit.config import Config
from kit.errors import UserError

SAMPLED_DOCUMENTS = 200
SAMPLED_CHARACTERS = 5_000
_ONE_EACH = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(f"[{_ONE_EACH}]|[^\\W_{_ONE_EACH}]+")


class LanguageFertility(Config):
    """One language's sample. `peer_` is the vocabulary that the recipe compares with, None without one."""

    documents: int
    words: int
    bytes: int
    tokens: int
    tokens_per_word: float | None
    tokens_per_byte: float
    peer_tokens_per_word: float | None = None
    peer_tokens_per_byte: float | None = None


class Fertility(Config):
    """What lies in artifacts/fertility.json."""

    languages: dict[str, LanguageFertility]
    peer: str | None = None


class _Chosen(NamedTuple):
    """Ordered so that the largest hash is the first to leave a heap."""

    negative_hash: int
    text: str


def measure_fertility(
    processor: SentencePieceProcessor, documents: Iterable[Document], compare_with: str | None = None
) -> Fertility:
    """Measure on up to 200 documents of every language, those with the least hash of their text.

    The sample depends on the texts alone, not on their order.

    Args:
        processor: our tokenizer.
        documents: the final texts.
        compare_with: as in TokenizerConfig.

    Raises:
        UserError: the vocabulary to compare with cannot be read.
    """
    peer = read_peer(compare_with) if compare_with else None
    samples = _sample(documents)
    rows = {language: _row(processor, peer, samples[language]) for language in sorted(samples)}
    return Fertility(languages=rows, peer=_name(compare_with) if compare_with else None)


def check_compare_with(config: TokenizerConfig) -> None:
    """Read the vocabulary to compare with, so that a run that cannot do so ends before it begins.

    Raises:
        UserError: it cannot be read.
    """
    if config.compare_with:
        read_peer(config.compare_with)


def read_peer(compare_with: str) -> Tokenizer:
    """A tokenizer.json, or a folder with one, or with GPT-2's vocab.json and merges.txt (Radford et al. 2019).

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = Path(compare_with)
    file = path / "tokenizer.json" if path.is_dir() else path
    vocabulary, merges = path / "vocab.json", path / "merges.txt"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        elif vocabulary.is_file() and merges.is_file():
            tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
        else:
            raise _unreadable(compare_with, "no such vocabulary is there")
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise _unreadable(compare_with, str(error).strip() or type(error).__name__) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _unreadable(compare_with: str, reason: str) -> UserError:
    return UserError(
        f"tokenizer.compare_with: {compare_with} cannot be read: {reason}",
        expected="a tokenizer.json, or a folder with one or with vocab.json and merges.txt",
        action="mend the path, or leave tokenizer.compare_with out",
    )


def _name(compare_with: str) -> str:
    path = Path(compare_with)
    return (path.parent if path.name == "tokenizer.json" else path).resolve().name


def _sample(documents: Iterable[Document]) -> dict[str, list[str]]:
    heaps: dict[str, list[_Chosen]] = {}
    for document in documents:
        heap = heaps.setdefault(str(document.metadata.get("language") or "en"), [])
        one = _Chosen(-text_hash(document.text), document.text[:SAMPLED_CHARACTERS])
        if len(heap) < SAMPLED_DOCUMENTS:
            heapq.heappush(heap, one)
        elif one > heap[0]:
            heapq.heapreplace(heap, one)
    return {language: [one.text for one in sorted(heap)] for language, heap in heaps.items()}


def _row(processor: SentencePieceProcessor, peer: Tokenizer | None, texts: list[str]) -> LanguageFertility:
    words = sum(len(_WORD.findall(text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    tokens = sum(len(processor.encode(text)) for text in texts)
    theirs = sum(len(peer.encode(text, add_special_tokens=False).ids) for text in texts) if peer else None
    return LanguageFertility(
        documents=len(texts),
        words=words,
        bytes=size,
        tokens=tokens,
        tokens_per_word=tokens / words if words else None,
        tokens_per_byte=tokens / max(1, size),
        peer_tokens_per_word=theirs / words if theirs is not None and words else None,
        peer_tokens_per_byte=theirs / max(1, size) if theirs is not None else None,
    )
