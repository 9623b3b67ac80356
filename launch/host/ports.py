"""Whether two hosts can reach each other's ports: one listens, the others connect.

Training uses ports that the system chooses, and so does this.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CONNECT_SECONDS = 4.0
WAITING = 128
AT_ONCE = 32


def listen() -> tuple[socket.socket, str]:
    """A listening socket that tells everyone who connects its token."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    listener = socket.create_server(("", 0), family=family, backlog=WAITING, dualstack_ipv6=both)
    token = secrets.token_hex(8)
    threading.Thread(target=_greet, args=(listener, token), daemon=True).start()
    return listener, token


def connect(address: str, port: int, token: str, seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
    """Reaches one listener; `error` says why not, `seconds` how long the connection took."""
    started = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=seconds) as connection:
            took = round(time.monotonic() - started, 4)
            heard = connection.makefile("r").readline().strip()
    except TimeoutError:
        return {"error": f"no answer within {seconds:g} s"}
    except OSError as error:
        return {"error": str(error.strerror or error)}
    return {"seconds": took} if heard == token else {"error": "another program answers there"}


def reach(others: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Connects to several listeners at once: name -> what `connect` says."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        tries = {
            name: pool.submit(connect, str(other["address"]), int(other["port"]), str(other["token"]))
            for name, other in others.items()
        }
        return {name: attempt.result() for name, attempt in tries.items()}


def _greet(listener: socket.socket, token: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # closed
        with connection, contextlib.suppress(OSError):
            connection.sendall(token.encode() + b"\n")
