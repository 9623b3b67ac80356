"""What the tests of the ground floor share: run directories, a dataset on disk, a tiny disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kit.files import sha256_file
from kit.run.directory import RunDirectory
from kit.run.manifest import Manifest, write_manifest
from kit.tokens.card import CARD_NAME, DatasetCard, SplitCard, TokenizerCard, write_card
from kit.tokens.shards import ShardWriter

CREATED = "2026-01-01T00:00:00.000+00:00"
MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run under `tmp_path` with a manifest; `created` orders the runs."""

    def make(stage: str = "pretrain", name: str = "tiny", created: str = CREATED) -> RunDirectory:
        run = RunDirectory.create(tmp_path, stage, name)
        write_manifest(run, manifest_of(run, stage=stage, name=name, created=created))
        return run

    return make


def manifest_of(run: RunDirectory, **fields: object) -> Manifest:
    data = {
        "run_id": run.id,
        "stage": "pretrain",
        "name": "tiny",
        "created": CREATED,
        "config_digest": "sha256:0",
        "key": "sha256:1",
    }
    return Manifest.model_validate({**data, **fields})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB and 64 files."""
    disk = tmp_path / "small-disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk failed: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """An artifacts folder with a card, a stand-in tokenizer file and one split of three documents below id 100."""
    folder = tmp_path / "artifacts"
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = folder / "tokenizer" / "tokenizer.model"
    tokenizer.write_bytes(b"pieces")
    split = write_split(folder, [[1, 2, 3, 0], [4, 0], [99, 98, 0]])
    card = DatasetCard(
        name="tiny",
        created_by="run",
        splits={"train": split},
        tokenizer=TokenizerCard(
            kind="bpe",
            vocab_size=100,
            fingerprint=sha256_file(tokenizer),
            file="tokenizer/tokenizer.model",
            eod_id=0,
            pad_id=1,
        ),
        blocks=[],
        config_digest="sha256:0",
        documents_in=3,
        documents_out=3,
    )
    write_card(folder / CARD_NAME, card)
    return folder


def write_split(folder: Path, documents: list[list[int]]) -> SplitCard:
    with ShardWriter(folder / "shards" / "train", np.dtype(np.uint16)) as writer:
        for document in documents:
            writer.add(document)
        info = writer.finish()
    return SplitCard(
        prefix="shards/train",
        documents=info.documents,
        tokens=info.tokens,
        text_bytes=10,
        sha256_bin=info.sha256_bin,
        sha256_idx=info.sha256_idx,
    )
