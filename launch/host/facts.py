"""What a host has, asked on the host itself and without torch: `python -m launch.host check`."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from kit.errors import UserError
from kit.hardware import available_cores
from launch.host.gpus import gpu_facts
from launch.host.ports import listen, reach
from launch.machine import package_versions

SHARED_MEMORY = Path("/dev/shm")


def check(arguments: dict[str, Any]) -> dict[str, Any]:
    """One question to a host.

    Args:
        arguments: `{"do": "facts", "workdir", "address", "peers": [...]}`;
            `{"do": "listen"}`, which prints `{"port", "token"}` and answers when standard input ends: with the ssh
            connection that asked, at the latest; or `{"do": "connect", "to": {name: {"address", "port", "token"}}}`.

    Raises:
        UserError: It is another question.
    """
    question = arguments.get("do", "facts")
    if question == "facts":
        peers = arguments.get("peers", ())
        return host_facts(str(arguments.get("workdir", ".")), str(arguments.get("address", "")), peers)
    if question == "listen":
        listener, token = listen()
        with listener:
            print(json.dumps({"port": listener.getsockname()[1], "token": token}), flush=True)
            sys.stdin.read()
        return {"listened": True}
    if question == "connect":
        return {"reached": reach(arguments.get("to", {}))}
    raise UserError(
        f"check: {question!r}", expected="facts, listen or connect", action="use the same version on every host"
    )


def host_facts(workdir: str, address: str = "", peers: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that one host can say of itself.

    Args:
        workdir: The folder that Slipway may fill; where it is not there yet, the nearest folder above counts.
        address: Where the others reach this host, as the target says.
        peers: Names or addresses of the other hosts, to be looked up from here.
    """
    folder = _existing(Path(workdir).expanduser())
    disk = shutil.disk_usage(folder)
    return {
        "hostname": socket.gethostname(),
        "address": address,
        "kernel": platform.release(),
        "versions": package_versions(),
        "cores": available_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "workdir": str(folder),
        "workdir_writable": os.access(folder, os.W_OK | os.X_OK),
        "disk_free_bytes": disk.free,
        "shared_memory_bytes": shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "time": time.time(),
        "own_name": look_up(socket.gethostname()),
        "names": {peer: look_up(peer) for peer in peers},
        **gpu_facts(),
    }


def look_up(name: str) -> dict[str, Any]:
    """The addresses that a name has here, and how long that took; `error` where it has none."""
    started = time.monotonic()
    answer: Mapping[str, Any]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        answer = {"addresses": sorted({str(entry[4][0]) for entry in found})}
    except OSError as error:
        answer = {"addresses": [], "error": str(error.strerror or error)}
    return {**answer, "seconds": round(time.monotonic() - started, 3)}


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
