"""An emulator of the EC2 API on this machine's own address; nothing here can reach, or pay, a real cloud."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules aren't packages; what several of them share lies in tests/ and tests/launch.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from emulator_of_ec2 import CREDENTIALS, Emulator

from infra import cloud_environment


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    if not cloud_environment.is_ready():
        pytest.skip("no .venv-cloud: `make setup-cloud` makes it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = [cloud_environment.BIN / "python", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process)
            yield Emulator(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the emulator does not start")
