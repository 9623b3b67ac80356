"""A checkpoint is complete or absent, and a damaged one is left out in favour of an older one."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest
import torch

from kit.errors import RunFailure, UserError
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.checkpoint.writing import Writing, write_later
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


@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing", "not complete", "manifest cut", "manifest bit"])
def test_a_damaged_one_is_left_out_and_named(store: CheckpointStore, tmp_path: Path, damage: str) -> None:
    part, complete = folder(tmp_path, 30) / "deeper" / "part", folder(tmp_path, 30) / "COMPLETE"
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "one bit":
        part.write_bytes(part.read_bytes()[:-1] + bytes([part.read_bytes()[-1] ^ 1]))
    elif damage == "missing":
        part.unlink()
    elif damage == "not complete":
        complete.unlink()
    elif damage == "manifest bit":
        text = complete.read_text()
        assert '"samples_seen": 240' in text
        complete.write_text(text.replace('"samples_seen": 240', '"samples_seen": 241'))
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
    left = tmp_path / "checkpoints" / "step-00000037.partial"
    left.mkdir()
    (left / "state.pt").write_bytes(b"half")
    assert store.newest_intact()[0] == folder(tmp_path, 30)
    store.save(manifest(40), state(40))
    assert store.newest_intact()[0] == folder(tmp_path, 40)
    assert not left.exists()


def small_store(tmp_path: Path, keep: int, keep_every: int | None = None) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", ALONE, keep, keep_every)


def test_those_of_every_so_many_steps_stay_for_good(tmp_path: Path) -> None:
    store = small_store(tmp_path, 1, 20)
    kept = []
    for step in range(5, 50, 5):
        store.save(manifest(step), state(step))
        kept.append(store.steps())
    assert kept == [[5], [10], [15], [20], [20, 25], [20, 30], [20, 35], [20, 40], [20, 40, 45]]


def test_damaged_ones_do_not_count_as_kept(store: CheckpointStore, tmp_path: Path) -> None:
    (folder(tmp_path, 30) / "state.pt").unlink()
    (folder(tmp_path, 20) / "state.pt").unlink()
    again = small_store(tmp_path, 2)
    assert again.newest_intact()[0] == folder(tmp_path, 10)
    assert again.steps() == [10, 20, 30], "nothing goes before there is a newer one"
    again.save(manifest(15), state(15))
    assert again.steps() == [10, 15]


@pytest.mark.parametrize(("version", "action"), [(1, "that wrote it"), (3, "newer Slipway")])
def test_another_schema_is_refused_and_not_passed_over(
    store: CheckpointStore, tmp_path: Path, version: int, action: str
) -> None:
    from recipes.checkpoint import manifest as module

    complete = folder(tmp_path, 30) / "COMPLETE"
    data = json.loads(complete.read_text())
    del data["sha256"]
    data["schema_version"] = version
    seal = {} if version == 1 else {"sha256": module._seal(data)}
    complete.write_text(json.dumps(data | seal))
    with pytest.raises(UserError, match=f"schema version {version}") as caught:
        store.newest_intact()
    assert action in caught.value.action
    assert store.steps() == [10, 20, 30]


class Slow:
    """A state whose writing waits until it is told to go on."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.go, self.fails, self.threads = threading.Event(), fails, list[str]()

    def __call__(self, partial: Path) -> Writing:
        path = partial / "state.pt"

        def write() -> None:
            self.threads.append(threading.current_thread().name)
            path.write_bytes(b"half")
            assert self.go.wait(timeout=30)
            if self.fails is not None:
                raise self.fails
            path.write_bytes(b"the whole state")

        return Writing(write, (path,))


def test_in_the_background_it_is_complete_once_it_is_settled(store: CheckpointStore, tmp_path: Path) -> None:
    slow = Slow()
    store.start(manifest(40), slow)
    for _ in range(3):
        assert store.settle() is None
        assert store.under_way
    assert store.steps() == [10, 20, 30]
    assert CheckpointStore(tmp_path / "checkpoints", ALONE, 3).newest_intact()[0] == folder(tmp_path, 30)
    slow.go.set()
    assert store.settle(wait=True) == 40
    assert not store.under_way
    assert slow.threads == ["checkpoint"]
    assert store.steps() == [20, 30, 40]
    assert store.newest_intact()[0] == folder(tmp_path, 40)
    assert store.settle() is None


def test_what_fails_in_the_background_is_told_when_it_is_settled(store: CheckpointStore, tmp_path: Path) -> None:
    slow = Slow(OSError(errno.ENOSPC, "No space left on device"))
    store.start(manifest(40), slow)
    slow.go.set()
    with pytest.raises(RunFailure, match="no space left on the disk"):
        store.settle(wait=True)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000010",
        "step-00000020",
        "step-00000030",
    ]
    store.save(manifest(40), state(40))
    assert store.newest_intact()[0] == folder(tmp_path, 40)


def test_the_copy_is_written_and_not_what_training_made_of_it(store: CheckpointStore, tmp_path: Path) -> None:
    live = torch.zeros(1000)
    store.start(manifest(40), lambda partial: write_later({partial / "live.pt": {"live": live}}))
    live += 1
    store.settle(wait=True)
    assert torch.load(folder(tmp_path, 40) / "live.pt")["live"].eq(0).all()
