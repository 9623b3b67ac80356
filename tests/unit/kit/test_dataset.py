"""The dataset card, and the check of shards, card and tokenizer against one another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.errors import UserError
from kit.tokens.card import BlockCard, DatasetCard, Example, InputCard, LanguageCard, read_card, write_card
from kit.tokens.check import check_shards

from .conftest import write_split


def change(dataset: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((dataset / "card.json").read_text())
    edit(data)
    (dataset / "card.json").write_text(json.dumps(data))


def test_a_card_comes_back_as_it_was(dataset: Path) -> None:
    block = BlockCard(
        name="language",
        documents_in=5,
        documents_out=3,
        bytes_in=50,
        bytes_out=30,
        dropped={"unknown": 2},
        examples={"unknown": [Example(id="1", url="https://example.org/", text="ünï\u2028code")]},
    )
    card = read_card(dataset / "card.json").model_copy(
        update={
            "blocks": [block],
            "languages": {"en": LanguageCard(documents=3, bytes=30)},
            "inputs": [InputCard(path="a.warc.gz", bytes=9, sha256="0")],
        }
    )
    write_card(dataset / "card.json", card)
    assert read_card(dataset / "card.json") == card


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"schema_version": null}', b"{}"])
def test_a_damaged_card_is_a_user_error_that_names_it(dataset: Path, content: bytes) -> None:
    (dataset / "card.json").write_bytes(content)
    with pytest.raises(UserError, match=r"card\.json"):
        read_card(dataset / "card.json")


def test_a_card_of_a_later_schema_is_refused(dataset: Path) -> None:
    change(dataset, lambda card: card.update(schema_version=99))
    with pytest.raises(UserError, match="schema version 99"):
        check_shards(dataset)


def test_a_whole_dataset_passes(dataset: Path) -> None:
    assert isinstance(check_shards(dataset, thorough=True), DatasetCard)
    assert check_shards(dataset, dataset / "tokenizer" / "tokenizer.model").splits["train"].tokens == 9


def test_a_missing_card_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file") as caught:
        check_shards(tmp_path)
    assert "dataset card" in caught.value.expected


def test_another_tokenizer_is_refused_with_both_fingerprints(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.model"
    other.write_bytes(b"other pieces")
    with pytest.raises(UserError, match="fingerprint") as caught:
        check_shards(dataset, other)
    assert str(other) in caught.value.found
    assert read_card(dataset / "card.json").tokenizer.fingerprint[:12] in caught.value.found


def test_a_missing_tokenizer_is_refused(dataset: Path) -> None:
    (dataset / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.model"):
        check_shards(dataset)


def test_an_id_outside_the_vocabulary_is_found_with_its_place(dataset: Path) -> None:
    split = write_split(dataset, [[1, 2, 0], [100, 0]]).model_dump()
    change(dataset, lambda card: card["splits"].update(train=split))
    with pytest.raises(UserError, match="token id 100 at position 3") as caught:
        check_shards(dataset)
    assert "100" in caught.value.expected


@pytest.mark.parametrize("field", ["documents", "tokens"])
def test_counts_that_differ_from_the_cards_are_refused(dataset: Path, field: str) -> None:
    change(dataset, lambda card: card["splits"]["train"].update({field: 4}))
    with pytest.raises(UserError, match="train: 3 documents and 9 tokens"):
        check_shards(dataset)


def test_a_changed_token_is_found_by_a_thorough_check_only(dataset: Path) -> None:
    tokens = dataset / "shards" / "train.bin"
    tokens.write_bytes(b"\x09" + tokens.read_bytes()[1:])
    check_shards(dataset)
    with pytest.raises(UserError, match="SHA-256"):
        check_shards(dataset, thorough=True)


def test_a_truncated_shard_is_refused(dataset: Path) -> None:
    tokens = dataset / "shards" / "train.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train\.bin"):
        check_shards(dataset)
