"""One host as the ssh executor sees it: its agent's answers, and its stream of frames."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from typing import Any

from kit.errors import RunFailure
from kit.target import Host, Target
from launch.executors.ssh_command import NOT_REACHED, destination, ssh_command
from launch.job import HostJob, Place, Work

CALL_SECONDS = 60.0
AGAIN_SECONDS = 1.0
Frames = queue.Queue[tuple[str, bytes]]


class NotReached(RunFailure):
    """A host that ssh doesn't get through to."""


class RemoteHost:
    """The agent of one host (`python -m launch.host`), over ssh."""

    def __init__(self, target: Target, host: Host, place: Place) -> None:
        self.target, self.host, self.place = target, host, place

    @property
    def name(self) -> str:
        """What logs and errors call it."""
        return self.host.name

    def call(self, verb: str, *words: str, given: str | None = None, seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """Ask the agent.

        Raises:
            NotReached: ssh doesn't get through, or nothing answers in time.
            RunFailure: the agent answers with an error, which is passed on with the host's name.
        """
        try:
            done = subprocess.run(
                self.command(verb, *words), input=given or "", capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise self._not_reached(f"no answer to `{verb}` in {seconds:.0f} s") from None
        if done.returncode == NOT_REACHED:
            raise self._not_reached(_last_line(done.stderr) or "the connection broke")
        answer = _last_object(done.stdout)
        if answer is None:
            raise RunFailure(
                f"host {self.name}: `{verb}` gave exit code {done.returncode}: {_last_line(done.stderr)}",
                expected="an answer of Slipway's agent there",
                action=f"see that {self.place.python} on the host has the packages of the lock; "
                "`slipway doctor --on TARGET` checks it",
            )
        if "error" in answer:
            parts = answer["error"]
            raise RunFailure(
                f"host {self.name}: {parts['found']}",
                expected=parts.get("expected", ""),
                action=parts.get("action", ""),
            )
        return answer

    def start(self, job: HostJob) -> dict[str, Any]:
        """Start this host's part; it outlives the connection."""
        return self.call("start", self.place.run, given=json.dumps(job.as_data()))

    def on_run(self, verb: str, seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """stop, kill or status."""
        return self.call(verb, self.place.run, "--node", str(self.place.node), seconds=seconds)

    def command(self, verb: str, *words: str) -> list[str]:
        """The ssh command line of a verb of the agent."""
        source = [f"PYTHONPATH={self.place.source}"] if self.place.source else []
        agent = ["env", *source, self.place.python, "-m", "launch.host", verb, *words]
        return ssh_command(self.target, self.host, *agent)

    def _not_reached(self, words: str) -> NotReached:
        return NotReached(
            f"host {self.name} ({self.host.reach}) is not reached: {words}",
            expected="an ssh connection with the target's user, key and known host key",
            action=f"try `ssh {destination(self.target, self.host)}`; `slipway doctor --on TARGET` tells more",
        )


class Stream(threading.Thread):
    """Reads one host's frames into a queue; a connection that breaks is opened again from where it was."""

    def __init__(self, remote: RemoteHost, work: Work, frames: Frames, positions: dict[str, int]) -> None:
        super().__init__(daemon=True, name=f"stream-{remote.name}")
        self._remote, self._work, self._frames, self._positions = remote, work, frames, positions
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self.heard = time.monotonic()

    def run(self) -> None:
        """Read until the end frame, or until `close`."""
        while not self._over.is_set():
            request = json.dumps({"work": self._work.as_data(), "positions": self._positions})
            place = self._remote.place
            words = self._remote.command("stream", place.run, "--node", str(place.node), "--request", request)
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self.heard = time.monotonic()
                if not line.startswith(b"@beat"):
                    self._frames.put((self._remote.name, line))
                self._note(line)
                if line.startswith(b"@end"):
                    self._over.set()
            self._process.wait()
            self._over.wait(AGAIN_SECONDS)

    def close(self) -> None:
        """Let go of the connection."""
        self._over.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _note(self, line: bytes) -> None:
        """How far it has read, for the next connection."""
        head, bar, _ = line.partition(b"@")
        offset = line[len(head) + 1 :].split(b"|")[0].split(b"~")[0]
        if head and bar and offset.isdigit():
            rest = line[len(head) + 1 + len(offset) + 1 :]
            size = len(rest) if line[len(head) + 1 + len(offset) :][:1] == b"|" else len(rest.rstrip(b"\n"))
            self._positions[head.decode()] = int(offset) + size


def _last_object(text: str) -> dict[str, Any] | None:
    for line in reversed(text.strip().splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
