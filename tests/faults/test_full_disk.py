"""A full disk: a clear failure, everything finished before is intact, and the run goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.run.directory import list_runs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here (needs root): {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_fails_clearly_and_the_run_goes_on_with_room(world: Path, slipway, small_disk: Path) -> None:
    slipway.runs = small_disk / "runs"
    slipway.runs.mkdir()
    data = next(run for run in list_runs(world / "runs") if run.manifest().stage == "data_prep")
    words = ("run", str(world / "model.yaml"), "--parent", f"data={data.path}", "--set", "checkpoint.keep=50")
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (2_600_000))
    code, output = slipway.run(*words, "--set", "model.hidden=64", "--set", "model.ffn=256")
    assert code == 1, output
    # PyTorch's writer hides the reason, so that a checkpoint can only say what it needs.
    assert "no space left on the disk" in output or "room for a checkpoint" in output, output
    assert "Traceback" not in output.split("Last lines")[0]

    run = slipway.newest()
    assert not list(run.checkpoints.glob("*.partial"))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    code, output = slipway.run("resume", run.id)
    assert code == 0, output
    assert slipway.steps(run) == 30
    shutil.rmtree(slipway.runs)
