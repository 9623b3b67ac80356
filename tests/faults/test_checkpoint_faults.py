"""A checkpoint that is written while training goes on: killed, or out of space, it costs nothing but itself."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine_programs
import pytest
from rank_processes import run_on_ranks

from kit.errors import RunFailure
from recipes.checkpoint.manifest import CheckpointManifest
from recipes.checkpoint.store import CheckpointStore
from recipes.checkpoint.writing import Writing
from recipes.distributed.processes import Processes

LAYOUT = {"tensor": 2}
LAST = 7
MIB = 1 << 20
Curve = list[tuple[float, float]]


def manifest(step: int) -> CheckpointManifest:
    return CheckpointManifest(step=step, samples_seen=8 * step, engine="megatron", layout={}, config_digest="x")


def held(save_state: Callable[[Path], Any], until: threading.Event) -> Callable[[Path], Writing]:
    """Lets a rank's writing begin late: what it copied has long changed by then."""

    def copy(folder: Path) -> Writing:
        writing = save_state(folder)

        def write() -> None:
            assert until.wait(timeout=60)
            writing.write()

        return Writing(write, writing.files, writing.complete)

    return copy


def train_undisturbed(processes: Processes) -> Curve:
    made, _ = engine_programs.started_engine(processes, "megatron", LAYOUT)
    return engine_programs.steps_of(made, 1, LAST)


@pytest.fixture(scope="module")
def undisturbed() -> Curve:
    curve: Curve = run_on_ranks(train_undisturbed, 2)[0]
    return curve


def killed_while_writing(processes: Processes, folder: str) -> None:
    """Keeps step 2 behind steps 3 and 4, then dies while step 4's state is being written."""
    made, _ = engine_programs.started_engine(processes, "megatron", LAYOUT)
    store = CheckpointStore(Path(folder), processes, keep=2)
    engine_programs.steps_of(made, 1, 2)
    go = threading.Event()
    store.start(manifest(2), held(made.save_state, go))
    engine_programs.steps_of(made, 3, 4)
    go.set()
    assert store.settle(wait=True) == 2

    def half(folder: Path) -> Writing:
        writing = made.save_state(folder)
        assert isinstance(writing, Writing)

        def write() -> None:
            writing.files[0].write_bytes(b"half of it")
            time.sleep(60)

        return Writing(write, writing.files, writing.complete)

    store.start(manifest(4), half)
    engine_programs.steps_of(made, 5, 5)
    assert store.settle() is None
    processes.barrier()
    while not (Path(folder) / "step-00000004.partial").is_dir() or not _halves(Path(folder)):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def _halves(folder: Path) -> bool:
    return len([path for path in folder.rglob("*.distcp") if path.stat().st_size == len(b"half of it")]) == 2


def second_life(processes: Processes, folder: str) -> tuple[str, list[str], Curve, list[int]]:
    """Goes on from the newest intact one, keeping states on the way as a run would."""
    made, _ = engine_programs.started_engine(processes, "megatron", LAYOUT)
    store = CheckpointStore(Path(folder), processes, keep=2)
    found, said = store.newest_intact()
    assert found is not None and said is not None
    made.load_state(found)
    curve = engine_programs.steps_of(made, said.step + 1, 4)
    store.start(manifest(4), made.save_state)
    curve += engine_programs.steps_of(made, 5, LAST)
    store.settle(wait=True)
    return found.name, store.complaints, curve, store.steps()


def test_a_kill_while_a_thread_writes_costs_only_that_checkpoint(tmp_path: Path, undisturbed: Curve) -> None:
    with pytest.raises(AssertionError, match="died without a word"):
        run_on_ranks(killed_while_writing, 2, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004.partial"]
    name, complaints, curve, then = run_on_ranks(second_life, 2, str(tmp_path))[0]
    assert (name, complaints) == ("step-00000002", [])
    assert curve == undisturbed[2:], "bit by bit, though what was copied changed before it was written"
    assert then == [2, 4]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here (needs root): {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


SMALL = 4 * MIB


def out_of_space(processes: Processes, folder: str) -> tuple[list[str], list[str], Curve]:
    made, _ = engine_programs.started_engine(processes, "megatron", LAYOUT)
    store = CheckpointStore(Path(folder), processes, keep=2)
    engine_programs.steps_of(made, 1, 2)
    store.save(manifest(2), made.save_state)
    engine_programs.steps_of(made, 3, 4)
    store.start(manifest(4), made.save_state)
    curve = engine_programs.steps_of(made, 5, 5)
    told = []
    try:
        store.settle(wait=True)
    except RunFailure as failure:
        told = list(failure.parts().values())
    processes.barrier()
    return told, sorted(path.name for path in Path(folder).iterdir()), curve


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_fills_while_training_goes_on_fails_every_rank_alike(small_disk: Path, undisturbed: Curve) -> None:
    answers = run_on_ranks(out_of_space, 2, str(small_disk))
    for told, names, curve in answers:
        assert told == answers[0][0]
        assert "no space left on the disk" in told[0]
        assert "checkpoint.keep" in told[2]
        assert names == ["step-00000002"]
        assert curve == undisturbed[4:5]
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    name, _, curve, then = run_on_ranks(second_life, 2, str(small_disk))[0]
    assert name == "step-00000002"
    assert curve == undisturbed[2:]
    assert then == [2, 4]
