"""What pods print, brought into the run directory: one thread a pod reads, one caller writes."""

from __future__ import annotations

import fcntl
import queue
import threading
import time
from enum import Enum
from pathlib import Path
from typing import IO

import urllib3
from kubernetes.client.exceptions import ApiException

from launch.executors.kubernetes.api import NETWORK, Cluster, lines_of
from launch.executors.mirror import Mirror

SILENCE_SECONDS = 60.0  # the read is tried again after so long without a byte: a dead connection gives no error
OVERLAP_SECONDS = 20  # what a reconnection asks for again; the mirror knows what it has
LOCK = "mirror.lock"
END = b"@end|"
BEAT = b"@beat|"


class _End(Enum):
    """How one connection to a log ended: with the log, by silence, in the middle, or with no such pod."""

    WHOLE = "whole"
    SILENT = "silent"
    BROKEN = "broken"
    GONE = "gone"


class LogFollower:
    """Reads one pod's log until its container has ended, reconnecting as often as it takes."""

    def __init__(self, cluster: Cluster, host: str, pod: str, lines: queue.Queue[tuple[str, bytes]]) -> None:
        self.host, self.pod = host, pod
        self.heard = time.monotonic()
        self.over = False
        self.beats = False
        self.began = False
        self._cluster, self._lines = cluster, lines
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._said_end = False
        self._thread = threading.Thread(target=self._run, name=f"log-{pod}", daemon=True)
        self._thread.start()

    def container_ended(self) -> None:
        """The container has ended: what its log holds now is all there will be."""
        self._ended.set()

    def stop(self) -> None:
        """Leave the log at the next line."""
        self._stop.set()

    def _run(self) -> None:
        since: int | None = None
        try:
            while not self._stop.is_set():
                last = self._ended.is_set()
                end = self._read(since)
                if self._said_end or end is _End.GONE or (last and end is _End.WHOLE):
                    return
                # Only after a silence is everything before it known to be here.
                since = int(time.monotonic() - self.heard) + OVERLAP_SECONDS if end is _End.SILENT else None
                self._stop.wait(0.3)
        finally:
            self.over = True

    def _read(self, since: int | None) -> _End:
        """One connection, to its end."""
        try:
            response = self._cluster.follow_log(self.pod, since, SILENCE_SECONDS)
        except ApiException as error:
            return _End.GONE if error.status == 404 else _End.BROKEN  # 400: its container hasn't started yet
        except NETWORK:
            return _End.BROKEN
        try:
            for line in lines_of(response):
                self.heard = time.monotonic()
                self.began = True
                self.beats |= line.startswith(BEAT)
                self._said_end |= line.startswith(END)
                self._lines.put((self.host, line + b"\n"))
                if self._stop.is_set():
                    return _End.BROKEN
            return _End.WHOLE
        except urllib3.exceptions.ReadTimeoutError:
            return _End.SILENT
        except NETWORK:
            return _End.BROKEN
        finally:
            response.close()


class JobLogs:
    """The logs of all pods of a job. Of several watchers of one run directory only one writes; the next takes over."""

    def __init__(self, cluster: Cluster, run: Path) -> None:
        self._cluster, self._run = cluster, run
        self._lines: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._followers: dict[str, LogFollower] = {}
        self._lock: IO[bytes] | None = None
        self._mirror: Mirror | None = None

    def follow(self, host: str, pod: str) -> None:
        """Begin to read a pod's log; again is harmless."""
        if self._mirror is None and not self._claim():
            return
        if pod not in self._followers:
            self._followers[pod] = LogFollower(self._cluster, host, pod, self._lines)

    def ended(self, pod: str) -> None:
        """A pod's container has ended."""
        if pod in self._followers:
            self._followers[pod].container_ended()

    def take(self) -> None:
        """Write what has arrived."""
        if self._mirror is None:
            return
        fed = False
        while True:
            try:
                host, line = self._lines.get_nowait()
            except queue.Empty:
                break
            self._mirror.feed(host, line)
            fed = True
        if fed:
            self._mirror.flush()

    def drain(self, seconds: float) -> None:
        """Wait until every log has been read to its end, at most so long."""
        for follower in self._followers.values():
            follower.container_ended()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(follower.over for follower in self._followers.values()):
            self.take()
            time.sleep(0.05)
        self.take()

    def silent_seconds(self, pod: str) -> float:
        """For how long a pod that gives signs of life has given none; 0 where it never gave any, or has ended."""
        follower = self._followers.get(pod)
        return time.monotonic() - follower.heard if follower and follower.beats and not follower.over else 0.0

    def heard(self, pod: str) -> None:
        """A pod is alive, as its node says: the silence counts from now."""
        if pod in self._followers:
            self._followers[pod].heard = time.monotonic()

    def note(self, host: str, words: str) -> None:
        """Add a line of ours to a host's log."""
        self._lines.put((host, words.encode() + b"\n"))

    def connected(self, seconds: float) -> None:
        """Wait until every log has begun to come, at most so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(f.began or f.over for f in self._followers.values()):
            time.sleep(0.02)

    def close(self) -> None:
        """Stop reading and let another watcher write."""
        for follower in self._followers.values():
            follower.stop()
        self.take()
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> bool:
        """Become the one who writes, unless somebody is."""
        folder = self._run / "processes"
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "ab")  # noqa: SIM115  held for as long as we write
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._lock, self._mirror = file, Mirror(self._run)
        return True
