"""`slipway chat` as a user starts it: a pipe, a file of questions, Ctrl-C, messages that don't fit."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chat_model
import pytest

from recipes.chat.dialogue import Decoding, Dialogue
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PROMPT = "> "
SLIPWAY = [sys.executable, "-m", "launch.cli", "chat"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = chat_model.write_model(tmp_path_factory.mktemp("chat") / "model", context=96)
    _, tokenizer = load_model(directory)
    (directory / "chat_template.jinja").write_text(ChatTemplate.of(tokenizer).jinja())
    return directory


def chat(directory: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*SLIPWAY, str(directory), "--new-tokens", "10", *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, input=text, capture_output=True, text=True, timeout=120)


def answer_of(directory: Path, question: str) -> str:
    dialogue = Dialogue(*load_model(directory), Decoding(temperature=0.0, top_k=0, new_tokens=10, seed=1))
    return "".join(dialogue.ask(question))


def test_a_piped_question_is_answered_on_stdout_alone(directory: Path) -> None:
    done = chat(directory, "Héllo 🙂\n\n   \n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == answer_of(directory, "Héllo 🙂") + "\n"


def test_json_is_the_only_line_of_stdout_and_a_long_message_is_refused_in_passing(directory: Path) -> None:
    done = chat(directory, "Hello\n" + "word " * 200 + "\nWhat now?", "--json")
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["run"] is None
    assert found["model"] == str(directory)
    assert [turn["prompt"] for turn in found["turns"]] == ["Hello", "What now?"]
    assert found["turns"][0]["answer"] == answer_of(directory, "Hello")
    assert found["turns"][0]["tokens"] > 0
    assert found["turns"][0]["seconds"] >= 0
    assert found["turns"][0]["answer"] in done.stderr
    assert "the model's context has 96" in done.stderr


def test_a_damaged_model_is_three_lines_and_no_traceback(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = chat(tmp_path / "model", "Hello\n", "--json")
    assert done.returncode == 2
    assert set(json.loads(done.stdout)["error"]) == {"found", "expected", "action"}
    assert "Traceback" not in done.stderr


def test_ctrl_c_in_a_terminal_ends_politely(directory: Path) -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*SLIPWAY, str(directory), "--new-tokens", "10"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(end)
    try:
        _read_until(terminal, PROMPT)
        os.write(terminal, b"Hello\n")
        shown = _read_until(terminal, PROMPT)
        os.write(terminal, b"\x03")
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in shown + _rest(terminal)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_a_signal_from_elsewhere_reaches_the_process_that_talks(directory: Path) -> None:
    process = subprocess.Popen(
        [*SLIPWAY, str(directory), "--json"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("Hello\n")
    process.stdin.flush()
    while not process.stderr.read(1):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["turns"][0]["prompt"] == "Hello"
    assert "Traceback" not in err


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(terminal: int, wanted: str) -> str:
    """What the terminal shows until it ends with the wanted words."""
    shown = ""
    deadline = time.monotonic() + 90
    while not shown.endswith(wanted):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def _rest(terminal: int) -> str:
    shown = b""
    try:
        while select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096)
    except OSError:  # the other end has gone
        pass
    return shown.decode(errors="replace")
