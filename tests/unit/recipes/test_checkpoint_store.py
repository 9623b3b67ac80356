"""A checkpoint is complete or absent, and a damaged one is left out in favour of an older one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from kit.errors import RunFailure
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.distributed.processes import Processes

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"), threads=1)


def manifest(step: int) -> CheckpointManifest:
    return CheckpointManifest(step=step, samples_seen=8 * step, engine="reference", layout={}, config_digest="x")


def state(step: int):
    def write(folder: Path) -> None:
        torch.save({"step": torch.tensor(step)}, folder / "state.pt")
        (folder / "deeper").mkdir()
        (folder / "deeper" / "part").write_bytes(bytes([step]) * 1000)

    return write


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints", ALONE, keep=3)
    for step in (10, 20, 30):
        store.save(manifest(step), state(step))
    return store


def folder(tmp_path: Path, step: int) -> Path:
    return tmp_path / "checkpoints" / f"step-{step:08d}"


def test_the_newest_is_found_with_all_that_was_said_about_it(store: CheckpointStore, tmp_path: Path) -> None:
    path, found = store.newest_intact()
    assert path == folder(tmp_path, 30)
    assert found is not None
    assert found.samples_seen == 240
    assert [file.path for file in found.files] == ["deeper/part", "state.pt"]
    assert store.complaints == []


def test_only_the_last_few_stay(store: CheckpointStore) -> None:
    store.save(manifest(40), state(40))
    assert store.steps() == [20, 30, 40]


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none", ALONE, keep=1).newest_intact() == (None, None)


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "not complete", "manifest cut"])
def test_a_damaged_one_is_left_out_and_named(store: CheckpointStore, tmp_path: Path, damage: str) -> None:
    part, complete = folder(tmp_path, 30) / "deeper" / "part", folder(tmp_path, 30) / "COMPLETE"
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "changed":
        part.write_bytes(part.read_bytes()[:-1] + b"!")
    elif damage == "missing":
        part.unlink()
    elif damage == "not complete":
        complete.unlink()
    else:
        complete.write_bytes(complete.read_bytes()[:40])
    path, found = store.newest_intact()
    assert path == folder(tmp_path, 20)
    assert found is not None
    assert found.step == 20
    assert len(store.complaints) == 1
    assert "step-00000030" in store.complaints[0]


def test_a_full_disk_leaves_older_ones_and_nothing_of_the_new(store: CheckpointStore, tmp_path: Path) -> None:
    def full(partial: Path) -> None:
        (partial / "half").write_bytes(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunFailure, match="no space left on the disk") as caught:
        store.save(manifest(40), full)
    assert "resume" in caught.value.action
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000010",
        "step-00000020",
        "step-00000030",
    ]
    assert store.newest_intact()[0] == folder(tmp_path, 30)


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_in_nobodys_way(
    store: CheckpointStore, tmp_path: Path
) -> None:
    left = tmp_path / "checkpoints" / "step-00000040.partial"
    left.mkdir()
    (left / "state.pt").write_bytes(b"half")
    assert store.newest_intact()[0] == folder(tmp_path, 30)
    store.save(manifest(40), state(40))
    assert store.newest_intact()[0] == folder(tmp_path, 40)
    assert not left.exists()
