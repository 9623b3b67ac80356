"""events.jsonl and the state that follows from it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from kit.errors import RunFailure
from kit.run.directory import RunDirectory
from kit.run.events import RunState, append_event, read_events, state_of


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "pretrain", "tiny")


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ("", RunState.SUBMITTED),
        ("submitted", RunState.SUBMITTED),
        ("submitted preparing", RunState.PREPARING),
        ("submitted started checkpointed", RunState.RUNNING),
        ("submitted started failed restarting", RunState.RESTARTING),
        ("submitted started failed restarting started", RunState.RUNNING),
        ("submitted started stopped", RunState.STOPPED),
        ("submitted started stopped submitted started finished", RunState.FINISHED),
        ("submitted started checkpointed failed", RunState.FAILED),
        ("finished invented", RunState.FINISHED),
    ],
)
def test_the_state_is_a_fold_over_the_events(run: RunDirectory, kinds: str, state: RunState) -> None:
    for kind in kinds.split():
        append_event(run, kind)
    assert state_of(run) == state


def test_an_event_keeps_its_details_and_its_time(run: RunDirectory) -> None:
    append_event(run, "failed", found="line\nbreak \u2028 \x85 ü", step=3)
    (event,) = read_events(run)
    assert event.pop("time").endswith("+00:00")
    assert event == {"event": "failed", "found": "line\nbreak \u2028 \x85 ü", "step": 3}


def test_a_cut_off_event_costs_only_itself_wherever_the_cut_is(run: RunDirectory) -> None:
    append_event(run, "started")
    start = run.events_path.read_bytes()
    append_event(run, "failed", found="ü" * 5)
    whole = run.events_path.read_bytes()
    for length in range(len(start) + 1, len(whole) - 1):
        run.events_path.write_bytes(whole[:length])
        assert [e["event"] for e in read_events(run)] == ["started"]
        append_event(run, "finished")
        assert [e["event"] for e in read_events(run)] == ["started", "finished"]


def test_a_full_disk_is_a_failure_in_words_and_the_next_event_is_whole(small_disk: Path) -> None:
    run = RunDirectory.create(small_disk, "pretrain", "tiny")
    filler = small_disk / "filler"
    # Leave one page: the event begins to fit, and does not end.
    filler.write_bytes(b"x" * (60 * 1024))
    with pytest.raises(RunFailure, match="no space left"):
        _append_many(run, 0)
    before = read_events(run)
    filler.unlink()
    append_event(run, "stopped")
    assert read_events(run)[:-1] == before
    assert state_of(run) == RunState.STOPPED


def _append_many(run: RunDirectory, writer: int) -> None:
    for number in range(200):
        append_event(run, "noted", writer=writer, number=number, text="x" * 500)


def test_several_processes_append_without_mixing_lines(run: RunDirectory) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(run, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted((e["writer"], e["number"]) for e in read_events(run)) == [
        (w, n) for w in range(3) for n in range(200)
    ]
