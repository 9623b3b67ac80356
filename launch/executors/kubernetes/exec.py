"""A command in a pod, over a websocket: bytes in, bytes out, an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from websocket import WebSocketException

from kit.errors import RunFailure
from launch.executors.kubernetes.api import Cluster, connect, message_of
from launch.executors.kubernetes.names import CONTAINER

STDIN, STDOUT, STDERR, ERROR = range(4)
PIECE_BYTES = 32 * 1024  # what kubectl sends at once
TRIES = 3


class Broken(Exception):
    """The connection ended before the command did."""


@dataclass
class Output:
    """What a command said, other than on stdout, which goes to its reader."""

    code: int
    errors: str


def execute(
    cluster: Cluster,
    pod: str,
    command: Sequence[str],
    feed: Callable[[], Iterable[bytes]] = tuple,
    read: Callable[[], Callable[[bytes], None]] = lambda: lambda _: None,
) -> None:
    """Run a command in a pod's container to its end; again from the start where the connection breaks.

    Args:
        cluster: where.
        pod: in which.
        command: its words; running it twice must do no harm.
        feed: gives what goes to its stdin, once for every try.
        read: gives a taker of its stdout, once for every try.

    Raises:
        RunFailure: The command fails, or the connection breaks again and again.
    """
    why = ""
    for pause in range(TRIES):
        time.sleep(pause)
        try:
            output = _once(cluster, pod, command, feed(), read())
        except (Broken, WebSocketException, OSError) as error:
            why = str(error) or type(error).__name__
            continue
        except ApiException as error:
            why = message_of(error)
            if "403" in why or "forbidden" in why.lower():
                break
            continue
        if output.code == 0:
            return
        raise RunFailure(
            f"`{' '.join(command[:5])}` in pod {pod} ended with {output.code}: {_last_line(output.errors)}",
            expected="exit code 0",
            action="see that the volume is there, has room, and may be written by the target's run_as_user",
        )
    raise RunFailure(
        f"no lasting connection into pod {pod} in namespace {cluster.namespace}: {why}",
        expected="`kubectl exec` to work: permission to create pods/exec, and a path to the node",
        action=f"try `kubectl exec {pod} -n {cluster.namespace} -- true`",
    )


def _once(
    cluster: Cluster, pod: str, command: Sequence[str], feed: Iterable[bytes], take: Callable[[bytes], None]
) -> Output:
    # A client of its own: `stream` puts its own transport into the client while it connects.
    core = client.CoreV1Api(connect(cluster.settings))
    socket = stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        cluster.namespace,
        command=list(command),
        container=CONTAINER,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
        binary=True,
    )
    errors = b""
    try:
        for data in feed:
            for start in range(0, len(data), PIECE_BYTES):
                socket.write_stdin(data[start : start + PIECE_BYTES])
        while socket.is_open():
            socket.update(timeout=1.0)
            take(socket.read_channel(STDOUT))
            errors += socket.read_channel(STDERR)
        take(socket.read_channel(STDOUT))
        errors += socket.read_channel(STDERR)
        return Output(_exit_code(socket.read_channel(ERROR)), errors.decode("utf-8", "replace"))
    finally:
        socket.close()


def _exit_code(status: bytes) -> int:
    """From the last message of the connection, a Status as JSON."""
    said = yaml.safe_load(status) if status else None
    if not isinstance(said, dict):
        raise Broken("the connection ended before the command did")
    if said.get("status") == "Success":
        return 0
    for cause in (said.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise Broken(str(said.get("message", said)))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
