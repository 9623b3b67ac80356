"""Executors on steps of one small block: every task once, whoever runs it, and the failures in words."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from datatrove.pipeline.base import PipelineStep

from data_prep.config import DataPrepConfig, ExecuteConfig
from data_prep.executors import hosts as hosts_module
from data_prep.executors.hosts import Hosts, meet
from data_prep.executors.local import LocalExecutor
from data_prep.executors.ray_cluster import RayExecutor
from data_prep.executors.slurm import SlurmExecutor
from data_prep.executors.table import EXECUTORS, build_executor
from data_prep.executors.tasks import completed, run_task
from kit.errors import RunFailure, SlipwayError, UserError

ROOT = Path(__file__).parents[3]


class Note(PipelineStep):
    """Writes a file a task, which says who ran it; fails or dies where it is told to."""

    type, name = "TEST", "note"

    def __init__(self, folder: Path, fails: int = -1, dies: int = -1, seconds: float = 0.0) -> None:
        super().__init__()
        self.folder, self.fails, self.dies, self.seconds = folder, fails, dies, seconds
        self.seen = 0

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[None]:
        time.sleep(self.seconds)
        if rank == self.fails:
            raise UserError("a task that fails", expected="none", action="nothing")
        if rank == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1
        assert self.seen == 1, "a task works on a copy of the blocks"
        with open(self.folder / f"{rank:05d}", "a") as file:
            file.write(f"{rank} of {world_size}\n")
        yield from ()


class Told(list[tuple[int, int]]):
    """What an executor has told of its progress."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def _notes(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir())]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_runs_once_and_never_again(workers: int, notes: Path, tmp_path: Path) -> None:
    told, step = Told(), tmp_path / "step"
    run_task([Note(notes)], 4, 7, step)
    executor = LocalExecutor(workers, Hosts())
    executor.execute([Note(notes)], 7, step, told)
    executor.execute([Note(notes)], 7, step, told)
    assert _notes(notes) == [f"{rank} of 7\n" for rank in range(7)]
    assert completed(step) == set(range(7))
    assert told[0] == (1, 7)
    assert told[-1] == (7, 7)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_block_raises_arrives_and_the_rest_goes_on_later(workers: int, notes: Path, tmp_path: Path) -> None:
    executor = LocalExecutor(workers, Hosts())
    with pytest.raises(UserError, match="a task that fails"):
        executor.execute([Note(notes, fails=2)], 5, tmp_path / "step", Told())
    assert 2 not in completed(tmp_path / "step")
    executor.execute([Note(notes)], 5, tmp_path / "step", Told())
    assert _notes(notes) == [f"{rank} of 5\n" for rank in range(5)]


def test_a_dead_worker_is_noticed(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match="killed from outside"):
        LocalExecutor(2, Hosts()).execute([Note(notes, dies=1)], 4, tmp_path / "step", Told())


def _on_each(count: int, work: Any, folder: Path) -> list[Any]:
    """Do something as each of several hosts at once; what each gave or raised."""
    given: list[Any] = [None] * count

    def one(index: int) -> None:
        try:
            given[index] = work(meet(folder, index, count, seconds=20))
        except SlipwayError as error:
            given[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_hosts_share_out_the_tasks_and_only_the_first_tells(notes: Path, tmp_path: Path) -> None:
    told = [Told(), Told(), Told()]

    def work(hosts: Hosts) -> bool:
        executor = LocalExecutor(1, hosts)
        executor.execute([Note(notes, seconds=0.01)], 20, tmp_path / "work" / "one", told[hosts.index])
        done = completed(tmp_path / "work" / "one")
        with hosts.first_only("single") as mine:
            if mine:
                (tmp_path / "single").write_text("done")
        assert (tmp_path / "single").read_text() == "done"
        executor.execute([Note(notes)], 2, tmp_path / "work" / "two", told[hosts.index])
        return done == set(range(20)) and hosts.only_first_remains()

    assert _on_each(3, work, tmp_path / "work" / "hosts") == [True, False, False]
    assert _notes(notes) == [f"{rank} of 20\n" + f"{rank} of 2\n" * (rank < 2) for rank in range(20)]
    assert told[0][-1] == (2, 2)
    assert told[1] == told[2] == []
    claims = {path.read_text() for path in (tmp_path / "work" / "hosts").glob("*/claims-one/*")}
    assert len(claims) > 1, "one host took everything"


def test_hosts_meet_anew_among_the_files_of_an_earlier_attempt(tmp_path: Path) -> None:
    first = _on_each(2, lambda hosts: hosts.folder, tmp_path)
    second = _on_each(2, lambda hosts: hosts.folder, tmp_path)
    assert first[0] == first[1]
    assert second[0] == second[1] != first[0]


def test_a_host_that_comes_early_does_not_take_the_earlier_attempt_for_its_own(tmp_path: Path) -> None:
    (old,) = set(_on_each(2, lambda hosts: hosts.folder, tmp_path))
    early: list[Hosts] = []
    waiting = threading.Thread(target=lambda: early.append(meet(tmp_path, 1, 2, seconds=20)))
    waiting.start()
    time.sleep(0.5)
    assert not early
    first = meet(tmp_path, 0, 2, seconds=20)
    waiting.join()
    assert early[0].folder == first.folder != old


def test_a_host_that_stays_alone_says_what_to_look_at(tmp_path: Path) -> None:
    for index in (0, 1):
        with pytest.raises(RunFailure, match=f"no answer from host {1 - index}") as refused:
            meet(tmp_path / str(index), index, 2, seconds=0.3)
        assert "storage that every host sees" in refused.value.expected


def test_a_failure_on_one_host_ends_the_wait_on_the_others(notes: Path, tmp_path: Path) -> None:
    def work(hosts: Hosts) -> None:
        try:
            LocalExecutor(1, hosts).execute([Note(notes, fails=1, seconds=0.2)], 2, tmp_path / "step", Told())
        except SlipwayError as error:
            hosts.fail(error.parts())
            raise

    raised = sorted(_on_each(2, work, tmp_path / "hosts"), key=str)
    assert [type(error) for error in raised] == [UserError, RunFailure]
    assert raised[0].found == "a task that fails"
    assert raised[1].found.endswith("has failed: a task that fails")


def test_other_hosts_hear_of_a_failure_and_of_other_inputs(tmp_path: Path) -> None:
    def work(hosts: Hosts) -> None:
        try:
            hosts.agree("inputs", "a.warc" if hosts.first else "b.warc")
            hosts.wait(lambda: False)
        except SlipwayError as error:
            hosts.fail(error.parts())
            raise

    first, second = _on_each(2, work, tmp_path)
    assert isinstance(second, UserError)
    assert second.found == "host 1 finds other inputs than host 0"
    assert isinstance(first, RunFailure)
    assert first.found == f"host 1 has failed: {second.found}"
    assert first.action == second.action


def test_a_host_without_a_sign_of_life_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(hosts_module, "LOST_SECONDS", 0.5)
    waited = time.monotonic()
    with pytest.raises(RunFailure, match="host 1 has given no sign of life"):
        Hosts(tmp_path, 0, 2).wait(lambda: False)
    assert time.monotonic() - waited >= 0.5


def test_the_table_has_every_kind_that_a_recipe_may_name() -> None:
    assert set(EXECUTORS) == set(get_args(ExecuteConfig.model_fields["kind"].annotation))
    config = DataPrepConfig.model_validate({"name": "x", "input": {"paths": ["a"]}, "workers": 3})
    executor = build_executor(config, Hosts())
    assert isinstance(executor, LocalExecutor)
    assert executor.workers == 3


def test_a_missing_cluster_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(UserError, match="no `sbatch` here"):
        SlurmExecutor(ExecuteConfig(kind="slurm"), None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="the package ray is not installed") as refused:
        RayExecutor(ExecuteConfig(kind="ray"), None)
    assert "pip install ray==" in refused.value.action


CLUSTER = """
    import sys
    from pathlib import Path
    from data_prep.config import DataPrepConfig
    from data_prep.executors.hosts import Hosts
    from data_prep.executors.table import build_executor
    from data_prep.processes import StopRequest, listen_for_stop
    sys.path.insert(0, str(Path("tests/unit/data_prep").resolve()))
    from test_executors import Note

    if __name__ == "__main__":
        listen_for_stop()
        folder, kind, fails, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
        execute = {"kind": kind, "slurm_memory_gib": 1, "slurm_time": "00:05:00"}
        data = {"name": "x", "input": {"paths": ["a"]}, "workers": 1, "execute": execute}
        try:
            executor = build_executor(DataPrepConfig.model_validate(data), Hosts())
            block = Note(folder / "notes", fails=fails, seconds=seconds)
            executor.execute([block], 3, folder / "step", lambda done, total: print("done", done, flush=True))
        except StopRequest:
            print("stopped")
"""


def _cluster_or_skip(kind: str) -> None:
    if kind == "ray" and find_spec("ray") is None:
        pytest.skip("the package ray is not installed (docs/scale-data.md)")
    if kind == "slurm":
        if shutil.which("sbatch") is None:
            pytest.skip("no Slurm here: the command sbatch is missing")
        asked = subprocess.run(["sinfo", "-h", "-p", "main", "-t", "idle,mixed"], capture_output=True, text=True)
        if not asked.stdout.strip():
            pytest.skip(f"Slurm has no partition `main` with a machine that is up: {asked.stderr.strip()[:200]}")


def _start(kind: str, tmp_path: Path, fails: int = -1, seconds: float = 0.0) -> subprocess.Popen[str]:
    """In a process of its own: clusters leave threads and signal handlers behind."""
    script = tmp_path / "cluster.py"
    script.write_text(textwrap.dedent(CLUSTER))
    tests = str(ROOT / "tests" / "unit" / "data_prep")
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), kind, str(fails), str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tests}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ray", "slurm"])
def test_a_cluster_runs_every_task_once_fails_in_words_and_stops(kind: str, notes: Path, tmp_path: Path) -> None:
    _cluster_or_skip(kind)
    run_task([Note(notes)], 0, 3, tmp_path / "step")  # as another executor has left it
    process = _start(kind, tmp_path, fails=1)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 1, output
    left = 2 if kind == "slurm" else 1  # a job of Slurm's ends with the first of its tasks that fails
    assert f"{left} of 3 tasks of the step step did not finish" in errors
    process = _start(kind, tmp_path, seconds=60)
    assert process.stdout is not None
    assert process.stdout.readline() == f"done {3 - left}\n"
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert output.endswith("stopped\n"), (output, errors)
    process = _start(kind, tmp_path)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == "done 3"
    assert _notes(notes) == [f"{rank} of 3\n" for rank in range(3)]
