"""The lab itself: hosts that are apart, fall silent, come back, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from backends import SshBackend
from command import until
from lab import host_lab
from lab.machine import ROOT
from lab.network import ip

from kit.config import load
from kit.target import Target
from launch.executors.ssh_command import NOT_REACHED, ssh_command

pytestmark = pytest.mark.hosts
DESERT = """
import os, sys
sys.path.insert(0, "tests")
from lab.host_lab import HostLab
lab = HostLab(1)
lab.open()
print(lab.name, flush=True)
sys.stdin.read()
"""


def say_name(hosts: SshBackend, node: int) -> tuple[int, str]:
    target = load(Target, Path(hosts.target())).settle(2, 0)
    ssh, *options = ssh_command(target, target.hosts[node], "hostname")
    # A connection of its own: one that is open already would first have to notice that the host has gone.
    done = subprocess.run([ssh, "-o", "ControlPath=none", *options], capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


def test_hosts_are_apart(hosts: SshBackend) -> None:
    assert [say_name(hosts, node) for node in range(2)] == [(0, "n1"), (0, "n2")]
    hosts.lab.run_on("n1", "echo mine >~/note; echo mine >/tmp/note")
    assert hosts.lab.run_on("n2", "cat ~/note /tmp/note 2>/dev/null; true") == ""
    assert hosts.lab.run_on("n2", f"test -e {ROOT}/launch || echo hidden") == "hidden\n"


def test_a_host_that_is_off_does_not_answer_and_comes_back_as_itself(hosts: SshBackend) -> None:
    hosts.lab.poweroff("n2")
    assert hosts.lab.processes_on("n2") == []
    assert say_name(hosts, 1)[0] == NOT_REACHED
    hosts.lab.boot("n2")
    assert say_name(hosts, 1) == (0, "n2")


def test_the_hosts_of_a_maker_that_was_killed_are_removed_by_the_next_one(hosts: SshBackend) -> None:
    maker = subprocess.Popen([sys.executable, "-c", DESERT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert maker.stdout is not None
    name = maker.stdout.readline().decode().strip()
    pid = int((host_lab.FOLDER / name / "n1" / "pid").read_text())
    os.kill(maker.pid, signal.SIGKILL)
    maker.communicate()
    until(lambda: not psutil.pid_exists(pid), 10)
    host_lab.remove_deserted()
    assert name not in host_lab.lab_names()
    assert not [entry for entry in json.loads(ip("-j", "netns", "list")) if entry["name"].startswith(name)]
