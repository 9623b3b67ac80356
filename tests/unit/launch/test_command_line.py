"""The command line: every verb's shape, three-part errors, exit codes, and the JSON line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.run.events import append_event
from launch.cli import VERBS, build_parser, main


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([verb, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    for option in ("--json", "--debug", "--runs"):
        assert option in out


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["plan"], ["run", "model.yaml", "--nonsense"], ["report"], ["status", "x", "--last"]]
)
def test_wrong_command_lines_are_user_errors(slipway, words: list[str]) -> None:
    code, out, err = slipway(*words)
    assert code == 2
    for part in ("Found:", "Expected:", "Do:"):
        assert err.count(part) == 1
    assert "Traceback" not in err + out


def test_an_error_with_json_is_the_last_line_of_stdout(slipway) -> None:
    code, out, err = slipway("plan", "model.yaml", "--set", "model.layer=3", "--json")
    assert code == 2
    answer = json.loads(out.splitlines()[-1])
    assert answer["exit_code"] == 2
    assert set(answer["error"]) == {"found", "expected", "action"}
    assert "Found:" in err


def test_debug_shows_the_traceback(slipway) -> None:
    assert "Traceback" in slipway("plan", "nothing.yaml", "--debug")[2]


def test_an_error_nobody_foresaw_has_three_parts_too(slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERBS["status"], "list_runs", lambda root: 1 / 0)
    code, _, err = slipway("status")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_ctrl_c_is_no_traceback(slipway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(root: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VERBS["status"], "list_runs", interrupt)
    code, out, err = slipway("status")
    assert code == 130
    assert "Traceback" not in out + err


def test_status_of_nothing(slipway) -> None:
    code, out, _ = slipway("status")
    assert code == 0
    assert "No runs" in out
    assert json.loads(slipway("status", "--json")[1]) == {"runs": []}


def test_status_shows_states_and_steps(slipway, past_run) -> None:
    done = past_run("data_prep")
    trained = past_run("pretrain", "submitted", "started", "stopped")
    trained.config_path.write_text("stage: pretrain\nbudget: {steps: 30}\n")
    trained.metrics_path.write_text(json.dumps({"step": 7, "loss": 5.25}) + "\n")
    lost = past_run("pretrain", "submitted", "started")
    _, out, _ = slipway("status")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "finished" in rows[done.id]
    assert "stopped" in rows[trained.id]
    assert "7/30" in rows[trained.id]
    assert "5.2500" in rows[trained.id]
    assert "failed (lost)" in rows[lost.id]


def test_status_of_one_run_says_why_it_failed(slipway, past_run) -> None:
    run = past_run("pretrain", "submitted", "started")
    append_event(run, "failed", found="rank 1 died", expected="no deaths", action="mend it")
    code, out, _ = slipway("status", run.id[:-2])
    assert code == 0
    assert "Found: rank 1 died" in out
    assert f"slipway resume {run.id}" in out


def test_all_logs_say_whose_they_are(slipway, past_run) -> None:
    run = past_run("pretrain", "submitted", "finished")
    (run.logs / "launcher.log").write_text("from the launcher\n")
    (run.logs / "rank-00001.log").write_text("one\ntwo\n")
    assert slipway("logs", "--last", "--all")[1] == "[launcher] from the launcher\n[rank 1] one\n[rank 1] two\n"
    hosts = "hosts: [a, b]\ndevices_per_host: 1\ndevice: cpu\nssh: {}\n"
    run.target_path.write_text("kind: ssh\n" + hosts)
    (run.logs / "launcher-00001.log").write_text("from b\n")
    assert slipway("logs", "--last", "--all", "--follow")[1].splitlines() == [
        "[b launcher] from b",
        "[a launcher] from the launcher",
        "[b rank 1] one",
        "[b rank 1] two",
    ]


def test_logs_show_a_rank_or_the_launcher(slipway, past_run) -> None:
    run = past_run("pretrain")
    (run.logs / "launcher.log").write_text("from the launcher\n")
    (run.logs / "rank-00001.log").write_text("".join(f"line {i}\n" for i in range(100)))
    assert slipway("logs", "--last")[1] == "from the launcher\n"
    assert slipway("logs", "--last", "--rank", "1", "--lines", "2")[1] == "line 98\nline 99\n"
    code, _, err = slipway("logs", run.id, "--rank", "5")
    assert code == 2
    assert "launcher, rank-00001" in err


def test_stop_and_resume_refuse_what_does_not_apply(slipway, past_run) -> None:
    run = past_run("pretrain")
    assert "does not run: it is finished" in slipway("stop", run.id)[2]
    assert "has finished" in slipway("resume", run.id)[2]


def test_a_missing_parent_names_the_recipe(slipway) -> None:
    code, _, err = slipway("run", "model.yaml")
    assert code == 2
    assert "slipway run data_prep/demo" in err
    assert "--with-parents" in err
    assert not Path("runs").exists()


def test_main_takes_the_words_of_the_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("sys.argv", ["slipway", "plan", "nothing"])
    assert main() == 2
