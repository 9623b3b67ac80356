"""Ansible playbooks run through ansible-runner, with errors that name the host and the task."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from kit.errors import RunFailure

PLAYBOOKS = Path(__file__).resolve().parent / "playbooks"
SETTINGS = {
    "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner would switch it off
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o BatchMode=yes",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_LOCALHOST_WARNING": "False",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_TIMEOUT": "20",
    "ANSIBLE_FORKS": "32",
}
Results = dict[str, dict[str, Any]]


def run_playbook(
    playbook: str,
    inventory: Mapping[str, Any],
    variables: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    environment_bin: Path | None = None,
) -> Results:
    """Runs a playbook to its end and says the name of each task as it starts.

    Args:
        playbook: A file, or the name of one in infra/playbooks without its ending.
        inventory: As Ansible reads it from YAML: `{"all": {"hosts": {name: {variable: value}}}}`.
        variables: For all hosts.
        say: Takes one line.
        environment_bin: The folder with `ansible-playbook`; None: this environment's.

    Returns:
        For every host, the result of each task that changed or found something, by the task's name; what `set_fact`
        set is under `facts`.

    Raises:
        RunFailure: A task failed, a host was not reached, or Ansible doesn't start.
    """
    import ansible_runner

    path = Path(playbook) if playbook.endswith((".yml", ".yaml")) else PLAYBOOKS / f"{playbook}.yml"
    programs = environment_bin or Path(sys.executable).parent
    log = _Log(say)
    with tempfile.TemporaryDirectory(prefix="slipway-ansible-") as folder, _own_signals():
        done = ansible_runner.run(
            private_data_dir=folder,
            playbook=str(path.resolve()),
            inventory=dict(inventory),
            extravars=dict(variables),
            envvars={**SETTINGS, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"},
            quiet=True,
            event_handler=log.take,
            settings={"idle_timeout": 0, "pexpect_use_poll": True},
        )
    if done.status == "canceled":
        _end_workers(folder)
        raise KeyboardInterrupt
    if log.failure is not None:
        raise log.failure
    if done.rc != 0:
        raise RunFailure(
            f"ansible-playbook {path.name} ended with {done.rc} ({done.status}): {log.last_words()}",
            expected="exit code 0",
            action=f"see that {programs / 'ansible-playbook'} starts; `make setup` installs it",
        )
    return log.results


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ansible-runner takes Ctrl-C and SIGTERM for itself and never gives them back: afterwards nobody could stop us."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)


def _end_workers(folder: str) -> None:
    """After a Ctrl-C: Ansible may leave a worker, which would go on making what nobody wants any more."""
    for process in psutil.process_iter(["environ", "cmdline"]):
        words = [*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values()]
        if process.pid != os.getpid() and any(folder in word for word in words):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class _Log:
    """What a playbook's events say."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._words: list[str] = []
        self.results: Results = {}
        self.failure: RunFailure | None = None

    def take(self, event: dict[str, Any]) -> bool:
        """One event of ansible-runner; False: not to be written to disk."""
        kind, data = event.get("event"), event.get("event_data", {})
        host, task, result = data.get("host", ""), data.get("task", ""), data.get("res") or {}
        if kind == "playbook_on_task_start" and task:
            self._say(str(task))
        elif kind == "runner_on_ok":
            mine = self.results.setdefault(host, {"facts": {}})
            mine["facts"].update(result.get("ansible_facts", {}))
            mine[task] = result
        elif kind == "runner_on_unreachable":
            self._fail(
                f"host {host} is not reached by Ansible ({task}): {_reason(result)}",
                "an ssh connection, and a shell and a Python there",
                f"log in to {host} by ssh, then try again",
            )
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            self._fail(
                f"host {host}: {task}: {_reason(result)}",
                str(result.get("expected") or "the task to succeed"),
                str(result.get("action") or f"mend it on {host}, then try again: what is done is kept"),
            )
        if event.get("stdout"):
            self._words = [*self._words, *str(event["stdout"]).splitlines()][-6:]
        return False

    def last_words(self) -> str:
        """The last lines that were printed."""
        return " / ".join(line.strip() for line in self._words if line.strip()) or "it printed nothing"

    def _fail(self, found: str, expected: str, action: str) -> None:
        # The first failure is the cause; what other hosts say after it often is not.
        self.failure = self.failure or RunFailure(found, expected=expected, action=action)


def _reason(result: Mapping[str, Any]) -> str:
    """The shortest text of a failed task that says why."""
    for item in result.get("results") or ():
        if item.get("failed"):
            return _reason(item)
    printed = str(result.get("stderr") or result.get("module_stderr") or result.get("stdout") or "").strip()
    tail = " / ".join(printed.splitlines()[-4:])
    message = str(result.get("msg") or "").strip()
    generic = message in ("", "non-zero return code") or message.startswith("MODULE FAILURE")
    return (tail or message or "no reason given") if generic else message
