"""`slipway check`: where it finds the dataset, what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kit.files import sha256_file
from kit.run.directory import RunDirectory
from kit.tokens.card import DatasetCard, SplitCard, TokenizerCard, write_card
from kit.tokens.shards import ShardWriter

from .conftest import Command, FinishedRun

DOCUMENTS = {"train": [[5, 6, 7, 2], [8, 2]], "validation": [[9, 10, 2]]}


def write_dataset(folder: Path) -> None:
    (folder / "tokenizer").mkdir(parents=True)
    model = folder / "tokenizer" / "tokenizer.model"
    model.write_bytes(b"pieces")
    splits = {}
    for name, documents in DOCUMENTS.items():
        with ShardWriter(folder / name, np.dtype(np.uint16)) as writer:
            for document in documents:
                writer.add(document)
            splits[name] = SplitCard(prefix=name, text_bytes=9, **writer.finish()._asdict())
    tokenizer = TokenizerCard(
        kind="bpe",
        vocab_size=320,
        fingerprint=sha256_file(model),
        file="tokenizer/tokenizer.model",
        eod_id=2,
        pad_id=3,
    )
    card = DatasetCard(
        name="small",
        created_by="run",
        splits=splits,
        tokenizer=tokenizer,
        blocks=[],
        config_digest="",
        documents_in=3,
        documents_out=3,
    )
    write_card(folder / "card.json", card)


@pytest.fixture
def prepared(past_run: FinishedRun) -> RunDirectory:
    run = past_run("data_prep")
    write_dataset(run.artifacts)
    return run


@pytest.mark.parametrize("words", [[], ["--fast"], ["--thorough"]])
def test_a_sound_dataset_ends_with_0(prepared: RunDirectory, slipway: Command, words: list[str]) -> None:
    code, out, _ = slipway("check", prepared.id, *words)
    assert code == 0
    assert "Nothing is wrong." in out
    assert "validation" in out


def test_an_error_ends_with_1_and_is_one_object_on_the_last_line(prepared: RunDirectory, slipway: Command) -> None:
    (prepared.artifacts / "tokenizer" / "tokenizer.model").write_bytes(b"others")
    (prepared.artifacts / "train.bin").write_bytes(b"x")
    code, out, err = slipway("check", "last:data_prep", "--json")
    data = json.loads(out.splitlines()[-1])
    assert code == 1
    assert len(out.splitlines()) == 1
    assert (data["healthy"], data["depth"]) == (False, "full")
    assert [(one["where"], one["level"]) for one in data["findings"]] == [("tokenizer", "error"), ("train", "error")]
    assert all(one["expected"] and one["action"] for one in data["findings"])
    assert data["splits"]["validation"]["tokens"] == 3
    assert "Traceback" not in err


def test_a_warning_does_not_change_the_code(prepared: RunDirectory, slipway: Command) -> None:
    card = prepared.artifacts / "card.json"
    card.write_text(card.read_text().replace('"documents_out": 3', '"documents_out": 9'))
    code, out, _ = slipway("check", "--last")
    assert code == 0
    assert "9 documents" in out


def test_a_folder_with_a_card_needs_no_run(folder: Path, slipway: Command) -> None:
    write_dataset(folder / "copied")
    code, out, _ = slipway("check", "copied", "--json")
    assert code == 0
    assert json.loads(out)["folder"] == "copied"


def test_a_training_run_is_taken_for_the_data_that_it_read(
    prepared: RunDirectory, past_run: FinishedRun, slipway: Command
) -> None:
    run = past_run("pretrain", parents={"data": {"run_id": prepared.id, "digest": "", "path": str(prepared.path)}})
    code, out, _ = slipway("check", run.id, "--json")
    assert code == 0
    assert json.loads(out)["folder"] == str(prepared.artifacts)


def test_a_chain_is_taken_for_its_data_stage(prepared: RunDirectory, past_run: FinishedRun, slipway: Command) -> None:
    stages = [{"id": "data", "stage": "data_prep", "run_id": prepared.id, "path": str(prepared.path), "reused": True}]
    run = past_run("chain", stages=stages)
    code, out, _ = slipway("check", run.id, "--json")
    assert code == 0
    assert json.loads(out)["folder"] == str(prepared.artifacts)


@pytest.mark.parametrize("words", [["nothing"], ["."], [], ["pretrain"]])
def test_where_there_is_no_dataset_the_input_is_wrong(
    folder: Path, past_run: FinishedRun, slipway: Command, words: list[str]
) -> None:
    words = [past_run("pretrain").id] if words == ["pretrain"] else words
    code, _, err = slipway("check", *words)
    assert code == 2
    assert all(part in err for part in ("Found:", "Expected:", "Do:"))


def test_a_damaged_card_is_wrong_input(prepared: RunDirectory, slipway: Command) -> None:
    (prepared.artifacts / "card.json").write_text("{")
    code, _, err = slipway("check", prepared.id)
    assert code == 2
    assert "card.json is damaged" in err
