"""What ranks decide together they decide alike."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from rank_processes import run_on_ranks

from recipes.distributed.processes import Processes


def reductions(processes: Processes) -> dict[str, Any]:
    return {
        "any": processes.agree_any(processes.rank == 1),
        "none": processes.agree_any(False),
        "words": processes.gather_words(f"I am {processes.rank}"),
        "largest": processes.largest(1.5 * processes.rank),
        "total": processes.total(0.1 * (processes.rank + 1)),
    }


def test_reductions_say_the_same_everywhere() -> None:
    answers = run_on_ranks(reductions, 3)
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["any"] is True
    assert answers[0]["none"] is False
    assert answers[0]["words"] == ["I am 0", "I am 1", "I am 2"]
    assert answers[0]["largest"] == 3.0
    assert answers[0]["total"] == pytest.approx(0.6)


def measured(processes: Processes) -> float:
    import torch

    from recipes.distributed.peak import measure_peak

    return measure_peak(processes, torch.float32, seconds=0.1)[0]


def test_the_peak_is_the_whole_jobs() -> None:
    first, second = run_on_ranks(measured, 2)
    assert first == second
    assert 1e8 < first < 1e14


def save_with_one_full_disk(processes: Processes, folder: str) -> tuple[str, list[str]]:
    from kit.errors import RunFailure
    from recipes.checkpoint.manifest import CheckpointManifest
    from recipes.checkpoint.store import CheckpointStore

    store = CheckpointStore(Path(folder), processes, keep=2)

    def write(partial: Path, full: bool) -> None:
        (partial / f"rank-{processes.rank}").write_bytes(b"x" * 100)
        if full and processes.rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def manifest(step: int) -> CheckpointManifest:
        return CheckpointManifest(step=step, samples_seen=0, engine="x", layout={}, config_digest="x")

    store.save(manifest(1), lambda partial: write(partial, full=False))
    try:
        store.save(manifest(2), lambda partial: write(partial, full=True))
    except RunFailure as failure:
        words = failure.found
    processes.barrier()
    path, _ = store.newest_intact()
    assert path is not None
    return words, [path.name, *sorted(p.name for p in Path(folder).iterdir())]


def test_a_disk_that_is_full_for_one_rank_fails_on_all_and_leaves_nothing(tmp_path: Path) -> None:
    first, second = run_on_ranks(save_with_one_full_disk, 2, str(tmp_path))
    assert first == second
    words, names = first
    assert "rank 1" in words
    assert "no space left on the disk" in words
    assert names == ["step-00000001", "step-00000001"]


def fails_on_one(processes: Processes) -> None:
    if processes.rank == 1:
        raise ValueError("the reason")
    processes.barrier()


def test_a_failing_rank_fails_the_test_with_its_traceback() -> None:
    with pytest.raises(AssertionError, match=r"the reason|Connection closed"):
        run_on_ranks(fails_on_one, 2, timeout_seconds=30)
