"""The live line, and where output goes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from launch.console import Console, table
from launch.progress import Tail, describe_event, step_parts, total_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_is_not_whole_yet_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text('{"step": 1}\n{"step"')
    assert tail.read() == [{"step": 1}]
    with path.open("a") as file:
        file.write(": 2}\nnot json\n")
    assert tail.read() == [{"step": 2}]
    assert tail.read() == []


def test_the_parts_of_the_line() -> None:
    records = [{"step": s, "loss": 4.5, "tokens_per_second": 12345.0, "step_seconds": 0.5} for s in (9, 10)]
    assert step_parts(records, 50) == ["step 10/50", "loss 4.5000", "12.3k tokens/s", "ETA 20 s"]
    assert step_parts(records, None) == ["step 10", "loss 4.5000", "12.3k tokens/s"]
    assert step_parts([], 50) == []
    assert step_parts([{"step": 1, "loss": "nan"}], 2) == ["step 1/2"]


def test_total_steps() -> None:
    assert total_steps({"budget": {"steps": 7}}) == 7
    assert total_steps({}) is None


def test_a_budget_in_tokens_has_the_steps_that_the_run_itself_tells() -> None:
    config = {"budget": {"tokens": "chinchilla"}}
    began = [{"event": "started"}, {"event": "training_began", "first_step": 1, "steps": 41}]
    assert total_steps(config) is None
    assert total_steps({"budget": "chinchilla"}) is None
    assert total_steps(config, began) == 41
    assert total_steps(config, [*began, {"event": "training_began", "first_step": 9, "steps": 50}]) == 50


def test_events_in_words() -> None:
    assert describe_event({"event": "progress", "block": "clean", "done": 3, "total": 8}) == "clean 3/8"
    assert describe_event({"event": "started"}) == "running"
    assert describe_event({"event": "finished"}) is None
    assert describe_event({"event": "skipped_file", "name": "x"}) == "skipped file x"


def test_a_terminal_gets_one_line_that_changes() -> None:
    stream = Terminal()
    console = Console(stream=stream)
    console.live("one")
    console.live("two")
    console.say("done")
    assert stream.getvalue() == "\rone\x1b[K\rtwo\x1b[K\r\x1b[Kdone\n"


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("launch.console.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    console = Console(stream=stream)
    for second in range(25):
        clock[0] = float(second)
        console.live(f"at {second}")
    assert stream.getvalue() == "at 10\nat 20\n"


def test_json_has_stdout_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.say("for people")
    console.result({"a": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1}
    assert captured.err == "for people\n"


def test_a_table_is_aligned() -> None:
    assert table(("A", "LONG"), [("xyz", "1")]) == "A    LONG\nxyz  1"
