"""What a host sends arrives exactly once, however often it is sent, cut, or read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.executors.mirror import Mirror
from launch.host.stream import StillRunning, sources, stream
from launch.job import Work

WORK = Work(module="recipes", processes=4, hosts=2)


def run_folder(path: Path) -> Path:
    for name in ("logs", "processes"):
        (path / name).mkdir(parents=True, exist_ok=True)
    return path


def sent(run: Path, node: int = 0, positions: dict[str, int] | None = None, code: int | None = 0) -> list[bytes]:
    """Everything that a host whose job has ended sends."""
    lines: list[bytes] = []
    stream(sources(run, WORK, node, positions or {}), lambda: code, lines.append, heartbeat=None)
    return b"".join(lines).splitlines(keepends=True)


def received(lines: list[bytes], here: Path, host: str = "n1") -> Mirror:
    mirror = Mirror(run_folder(here))
    for line in lines:
        mirror.feed(host, line)
    mirror.close()
    return mirror


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    cut=st.integers(min_value=0, max_value=30),
)
def test_a_file_arrives_as_it_is_whatever_is_cut_or_sent_twice(
    parts: list[bytes], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = run_folder(tmp_path_factory.mktemp("there"))
    here = run_folder(tmp_path_factory.mktemp("here"))
    log = there / "logs" / "rank-00001.log"
    for part in parts:
        with log.open("ab") as file:
            file.write(part)
        lines = sent(there, positions=Mirror(here).positions("n1"))
        received(lines[:cut], here)  # the connection breaks
        received(lines, here)  # a pod's log is read again from its beginning
        received(sent(there, positions=Mirror(here).positions("n1")), here)  # another goes on where it was
    arrived = here / "logs" / "rank-00001.log"
    assert (arrived.read_bytes() if arrived.exists() else b"") == b"".join(parts)


def test_each_host_sends_its_own_ranks_and_the_first_events_and_metrics(tmp_path: Path) -> None:
    there = run_folder(tmp_path / "there")
    for rank in range(4):
        (there / "logs" / f"rank-{rank:05d}.log").write_text(f"rank {rank}\n")
    (there / "logs" / "launcher.log").write_text("first\n")
    (there / "logs" / "launcher-00001.log").write_text("second\n")
    started, failed = ({"time": "t", "event": name, "rank": 3} for name in ("started", "failed"))
    (there / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (started, failed)))
    (there / "metrics.jsonl").write_text('{"step": 1}\n')

    names = [{line.split(b"@")[0] for line in sent(there, node) if not line.startswith(b"@")} for node in range(2)]
    assert names[0] == {b"rank-00000", b"rank-00001", b"launcher", b"events", b"metrics"}
    assert names[1] == {b"rank-00002", b"rank-00003", b"launcher-00001", b"failures"}

    here = tmp_path / "here"
    received(sent(there, 1), here, "n2")
    assert [json.loads(line)["event"] for line in (here / "events.jsonl").read_text().splitlines()] == ["failed"]
    received(sent(there, 0), here, "n1")
    events = [json.loads(line) for line in (here / "events.jsonl").read_text().splitlines()]
    assert sorted(event["event"] for event in events) == ["failed", "started"]
    assert (here / "logs" / "rank-00003.log").read_text() == "rank 3\n"
    assert (here / "logs" / "launcher-00001.log").read_text() == "second\n"
    assert (here / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_the_last_frame_tells_how_the_job_ended_there(tmp_path: Path) -> None:
    there = run_folder(tmp_path / "there")
    mirror = received(sent(there, code=3), tmp_path / "here")
    assert mirror.ended == {"n1": 3}
    assert received(sent(there, code=None), tmp_path / "here", "n2").ended == {"n2": None}


def test_a_host_that_begins_anew_is_taken_from_its_beginning(tmp_path: Path) -> None:
    there, here = run_folder(tmp_path / "there"), tmp_path / "here"
    (there / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    received(sent(there), here)
    (there / "metrics.jsonl").write_text('{"step": 1}\n')  # another disk
    received(sent(there, positions=Mirror(here).positions("n1")), here)
    assert (here / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 1}\n'


def test_words_that_are_no_frames_are_kept(tmp_path: Path) -> None:
    received([b"Traceback: no such module\n", b"@beat|{}\n", b"@end|not json\n"], tmp_path / "here", "n/1")
    assert (tmp_path / "here/logs/host-n-1.log").read_text() == "Traceback: no such module\n"


def test_a_stream_waits_while_the_job_runs_and_shows_signs_of_life(tmp_path: Path) -> None:
    there = run_folder(tmp_path / "there")
    log = there / "logs" / "rank-00000.log"
    looks: list[int] = []
    lines: list[bytes] = []

    def ended() -> Any:
        looks.append(1)
        if len(looks) == 2:
            log.write_text("begins\n")
        if len(looks) < 4:
            raise StillRunning
        return 0

    assert stream(sources(there, WORK, 0, {}), ended, lines.append, heartbeat=0.0) == 0
    text = b"".join(lines).decode()
    assert "rank-00000@0|begins\n" in text
    assert "@beat|" in text
    assert text.splitlines()[-1] == '@end|{"exit_code": 0}'
