"""Hosts without a common disk hold every checkpoint whole, so that any of them can be lost or new."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

from rank_processes import run_on_ranks

from recipes.distributed.processes import Processes

RANKS_PER_HOST = 2


def on_two_disks(processes: Processes, folder: str, what: str) -> tuple[int | None, list[str], list[str]]:
    """Four ranks, two on each disk: what a disk holds after an action, and what could not be done."""
    from kit.errors import RunFailure
    from recipes.checkpoint.manifest import CheckpointManifest
    from recipes.checkpoint.store import CheckpointStore
    from recipes.checkpoint.writing import Writing

    host, local = divmod(processes.rank, RANKS_PER_HOST)
    os.environ["LOCAL_RANK"] = str(local)
    disk = Path(folder) / f"disk-{host}"
    store = CheckpointStore(disk, processes, keep=2)
    failed: list[str] = []

    def write(partial: Path) -> None:
        (partial / "shards").mkdir(exist_ok=True)
        (partial / "shards" / f"rank-{processes.rank}").write_bytes(bytes([processes.rank]) * 100_000)
        if processes.rank == 0:
            (partial / "empty").touch()
        if what == "full" and processes.rank == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write_later(partial: Path) -> Writing:
        (partial / "shards").mkdir(exist_ok=True)
        path = partial / "shards" / f"rank-{processes.rank}"
        return Writing(lambda: write(partial), (path,), processes.barrier)

    def manifest(step: int) -> CheckpointManifest:
        return CheckpointManifest(step=step, samples_seen=0, engine="x", layout={}, config_digest="x")

    try:
        for step in {"save": (1, 2, 3), "full": (4,)}.get(what, ()):
            store.save(manifest(step), write)
        if what == "behind":
            store.start(manifest(5), write_later)
            while store.under_way:
                time.sleep(0.01)
                store.settle()
    except RunFailure as failure:
        failed.append(failure.found)
    path, found = store.newest_intact()
    assert path is None or path.parent == disk
    held = sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file())
    return (found.step if found else None), held, failed


def files_of(*steps: int) -> list[str]:
    names = ["COMPLETE", "empty", *(f"shards/rank-{rank}" for rank in range(4))]
    return [f"step-{step:08d}/{name}" for step in steps for name in names]


def test_every_disk_holds_every_ranks_part(tmp_path: Path) -> None:
    for step, held, failed in run_on_ranks(on_two_disks, 4, str(tmp_path), "save"):
        assert (step, failed) == (3, [])
        assert held == files_of(2, 3)
    one, two = (tmp_path / f"disk-{host}/step-00000003" for host in range(2))
    assert (one / "COMPLETE").read_bytes() == (two / "COMPLETE").read_bytes()
    assert (two / "shards/rank-0").read_bytes() == bytes(100_000)

    # A new host with an empty disk receives what the other holds; a damaged file is replaced.
    shutil.rmtree(tmp_path / "disk-0")
    (two / "COMPLETE").touch()
    assert {step for step, _, _ in run_on_ranks(on_two_disks, 4, str(tmp_path), "look")} == {3}
    assert (one / "shards/rank-3").read_bytes() == bytes([3]) * 100_000
    (two / "shards/rank-1").write_bytes(b"damaged")
    assert {step for step, _, _ in run_on_ranks(on_two_disks, 4, str(tmp_path), "look")} == {3}
    assert (two / "shards/rank-1").read_bytes() == bytes([1]) * 100_000

    # One full disk: nothing of the new checkpoint is left on any, and the older ones are as they were.
    for step, held, failed in run_on_ranks(on_two_disks, 4, str(tmp_path), "full"):
        assert step == 3
        assert not [name for name in held if "00000004" in name]
        assert "rank 3 could not write" in failed[0]
        assert "no space left on the disk" in failed[0]


def test_hosts_exchange_files_while_training_goes_on(tmp_path: Path) -> None:
    for step, held, failed in run_on_ranks(on_two_disks, 4, str(tmp_path), "behind"):
        assert (step, failed) == (5, [])
        assert held == files_of(5)
    one, two = (tmp_path / f"disk-{host}/step-00000005" for host in range(2))
    assert (one / "COMPLETE").read_bytes() == (two / "COMPLETE").read_bytes()
    assert (two / "shards/rank-1").read_bytes() == bytes([1]) * 100_000
