"""A playbook that really runs here: its errors, and that it gives back the signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from infra.ansible import run_playbook
from kit.errors import RunFailure

HERE = {"all": {"hosts": {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}
PLAY = """\
- name: Try
  hosts: all
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.raw: {command}
"""


def playbook(folder: Path, command: str) -> str:
    path = folder / "try.yml"
    path.write_text(PLAY.format(command=command))
    return str(path)


def test_ctrl_c_is_ours_again_after_a_playbook(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    said: list[str] = []
    results = run_playbook(playbook(tmp_path, "echo it"), HERE, {}, said.append)
    assert said == ["Say something"]
    assert "here" in results
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_a_playbook_and_is_no_failure_of_it(tmp_path: Path) -> None:
    timer = threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_playbook(playbook(tmp_path, "sleep 60"), HERE, {}, lambda line: None)
    finally:
        timer.cancel()


def test_a_failed_task_is_named_with_its_host(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"here.*Say something|Say something.*here"):
        run_playbook(playbook(tmp_path, "exit 3"), HERE, {}, lambda line: None)
