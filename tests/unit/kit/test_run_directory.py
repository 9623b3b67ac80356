"""Run directories: made once, found by every kind of reference."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest

from kit.errors import RunFailure, UserError
from kit.run.directory import FOLDERS, RunDirectory, find_run, list_runs
from kit.run.events import append_event

from .conftest import MakeRun


def test_a_run_is_named_after_its_time_stage_and_name(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", "data_prep", "my corpus/ü v1.0")
    assert re.fullmatch(r"\d{8}-\d{6}-data_prep-my-corpus-v1\.0-[0-9a-f]{4}", run.id)
    assert {folder.name for folder in run.path.iterdir()} == set(FOLDERS)
    assert run.path.parent == tmp_path / "runs"


def test_create_never_uses_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter(["aaaa", "aaaa", "aaaa", "bbbb", "aaaa", "bbbb", "cccc"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(draws))
    first = RunDirectory.create(tmp_path, "pretrain", "tiny")
    (first.path / "metrics.jsonl").write_text("precious")
    # The second may fall into the next second, where `aaaa` is free again; a folder of its own it is in any case.
    assert RunDirectory.create(tmp_path, "pretrain", "tiny").path != first.path
    assert (first.path / "metrics.jsonl").read_text() == "precious"


def test_a_full_disk_is_a_failure_in_words(small_disk: Path) -> None:
    with pytest.raises(RunFailure, match="no space left"):
        _create_many(small_disk)


def _create_many(root: Path) -> None:
    for _ in range(100):
        RunDirectory.create(root, "pretrain", "tiny")


@pytest.mark.parametrize("root", ["file", "file/runs", "locked"])
def test_a_root_that_cannot_hold_runs_is_a_user_error(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.access(tmp_path / root, os.W_OK) and (tmp_path / root).is_dir():
        pytest.skip("root may write everywhere")
    with pytest.raises(UserError, match="no run can be made") as caught:
        RunDirectory.create(tmp_path / root, "pretrain", "tiny")
    assert "--runs" in caught.value.action


def test_every_path_lies_in_the_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "pretrain", "tiny")
    for name in ("manifest_path", "config_path", "target_path", "events_path", "metrics_path", *FOLDERS):
        assert getattr(run, name).parent == run.path


def test_open_takes_runs_only(tmp_path: Path, make_run: MakeRun) -> None:
    assert RunDirectory.open(make_run().path).path.is_dir()
    fresh = RunDirectory.create(tmp_path, "pretrain", "no-manifest-yet")
    assert RunDirectory.open(fresh.path).id == fresh.id
    for path in (tmp_path, tmp_path / "gone", tmp_path / "20260101-000000-pretrain-gone-0000"):
        with pytest.raises(UserError, match="no run directory"):
            RunDirectory.open(path)


def test_runs_are_listed_oldest_first_and_without_strangers(tmp_path: Path, make_run: MakeRun) -> None:
    late = make_run(created="2026-03-01T00:00:00.000+00:00")
    early = make_run(created="2026-01-01T00:00:00.000+00:00")
    (tmp_path / "stranger").mkdir()
    (tmp_path / "file").touch()
    RunDirectory.create(tmp_path, "pretrain", "no-manifest-yet")
    assert [run.id for run in list_runs(tmp_path)] == [early.id, late.id]
    assert list_runs(tmp_path / "gone") == []


def test_a_run_is_found_by_path_id_and_unique_beginning(tmp_path: Path, make_run: MakeRun) -> None:
    run, other = make_run("pretrain"), make_run("evaluate")
    assert find_run(tmp_path / "elsewhere", str(run.path)).path == run.path
    assert find_run(tmp_path, run.id).path == run.path
    assert find_run(tmp_path, run.id[: len("20260101-000000-p")]).path == run.path
    assert find_run(tmp_path, other.id[:-1]).path == other.path


def test_an_id_that_begins_another_id_is_exact(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run()
    longer = tmp_path / f"{run.id}-0000"
    longer.mkdir()
    (longer / "manifest.json").write_bytes(run.manifest_path.read_bytes())
    assert find_run(tmp_path, run.id).path == run.path


def test_an_ambiguous_beginning_and_a_wrong_one_are_user_errors(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(), make_run()
    with pytest.raises(UserError, match="2 runs fit '20'"):
        find_run(tmp_path, "20")
    with pytest.raises(UserError, match="no run fits 'nothing'") as caught:
        find_run(tmp_path, "nothing")
    assert "slipway status" in caught.value.action
    with pytest.raises(UserError) as caught:
        find_run(tmp_path / "gone", "last")
    assert "make demo" in caught.value.action


def test_last_is_the_newest_chain_or_else_the_newest_run(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(created="2026-01-01T00:00:00.000+00:00")
    newest = make_run(created="2026-01-04T00:00:00.000+00:00")
    assert find_run(tmp_path, "last").id == newest.id
    make_run("chain", created="2026-01-02T00:00:00.000+00:00")
    chain = make_run("chain", created="2026-01-03T00:00:00.000+00:00")
    assert find_run(tmp_path, "last").id == chain.id


def test_last_of_a_stage_is_the_newest_that_finished(tmp_path: Path, make_run: MakeRun) -> None:
    old, good, bad, running = (make_run(created=f"2026-01-0{day}T00:00:00.000+00:00") for day in range(1, 5))
    other = make_run("evaluate", created="2026-01-09T00:00:00.000+00:00")
    with pytest.raises(UserError, match="no run fits 'last:pretrain'"):
        find_run(tmp_path, "last:pretrain")
    for run in (old, good, other):
        append_event(run, "finished")
    append_event(bad, "failed")
    append_event(running, "started")
    assert find_run(tmp_path, "last:pretrain").id == good.id
    with pytest.raises(UserError):
        find_run(tmp_path, "last:data_prep")


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, make_run: MakeRun) -> None:
    whole = make_run()
    broken = make_run()
    broken.manifest_path.write_text("{")
    assert [run.id for run in list_runs(tmp_path)] == [whole.id]
    with pytest.raises(UserError, match=r"manifest\.json"):
        broken.manifest()
