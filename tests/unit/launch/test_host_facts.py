"""What this machine says of itself as a host, and its ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import UserError
from launch.host.facts import check, host_facts
from launch.host.ports import connect, listen, reach


def test_a_host_says_what_it_has(tmp_path: Path) -> None:
    facts = host_facts(str(tmp_path / "not" / "there"), "10.0.0.1", ["localhost", "nowhere.invalid"])
    assert facts["workdir"] == str(tmp_path)
    assert facts["cores"] >= 1 and facts["memory_bytes"] > 0 and facts["disk_free_bytes"] > 0
    assert "torch" in facts["versions"]
    assert facts["names"]["localhost"]["addresses"]
    assert facts["names"]["nowhere.invalid"]["error"]
    assert json.loads(json.dumps(facts)) == facts


def test_facts_need_no_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; from launch.host.facts import check; check({'do': 'facts'})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_port_is_reached_by_its_token_alone() -> None:
    listener, token = listen()
    with listener:
        port = listener.getsockname()[1]
        found = reach(
            {
                "right": {"address": "127.0.0.1", "port": port, "token": token},
                "other": {"address": "127.0.0.1", "port": port, "token": "another"},
            }
        )
    assert found["right"]["seconds"] < 4
    assert found["other"] == {"error": "another program answers there"}


def test_a_closed_port_says_why() -> None:
    listener, token = listen()
    port = listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert "refused" in connect("127.0.0.1", port, token)["error"]


def test_a_listener_ends_with_its_standard_input() -> None:
    command = [sys.executable, "-m", "launch.host", "check", '{"do": "listen"}']
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert "error" not in check({"do": "connect", "to": {"it": {**said, "address": "127.0.0.1"}}})["reached"]["it"]
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_another_question_is_refused() -> None:
    with pytest.raises(UserError, match="check: 'x'"):
        check({"do": "x"})
