"""The ssh backend: hosts that are there, each with the project's agent, joined by torchrun.

The job lives on the hosts, not in the connection: a launcher that dies leaves it running, and another one finds it
again (`slipway attach`, `slipway stop`). Only `wait` copies what the ranks write.
"""

from __future__ import annotations

import json
import queue
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kit.errors import RunFailure, UserError
from kit.files import atomic_write, sha256_file
from kit.target import Host, SshSettings, Target
from launch.executors.mirror import Mirror
from launch.executors.protocol import Ending, OnPoll, Say, Status, nothing
from launch.executors.ssh_command import ssh_command
from launch.executors.ssh_host import Frames, NotReached, RemoteHost, Stream
from launch.executors.ssh_prepare import prepare_hosts
from launch.job import JobDescription, Place, host_job

PLACES = "places.json"
POLL_SECONDS = 0.2
OTHERS_END_SECONDS = 30.0
STOP_SLACK_SECONDS = 60.0


class SshExecutor:
    """Runs a job on the hosts of a target."""

    def prepare(self, job: JobDescription, say: Say) -> None:
        """Code, configuration, parents and inputs to every host that the job takes."""
        places = prepare_hosts(job, _hosts(job), say)
        _write_places(job, places)

    def submit(self, job: JobDescription) -> None:
        """Start all hosts or none."""
        remotes = _remotes(job)
        first = remotes[0]
        port = first.call("port", first.place.address)["port"] if len(remotes) > 1 else 0
        meets = first.place.address
        parts = [replace(remote.place, master_address=meets, master_port=port) for remote in remotes]
        try:
            _each(remotes, lambda remote: remote.start(host_job(job.work, parts[remotes.index(remote)])))
        except BaseException:
            _each(remotes, lambda remote: remote.on_run("kill"), tolerant=True)
            raise
        _write_places(job, {remote.name: part for remote, part in zip(remotes, parts, strict=True)})

    def wait(self, job: JobDescription, on_poll: OnPoll = nothing) -> Ending:
        """Copy what the ranks write until every host's part has ended, or a host is lost."""
        watch = _Watch(job, _remotes(job))
        try:
            return watch.to_the_end(on_poll)
        finally:
            watch.close()

    def stop(self, job: JobDescription, on_poll: OnPoll = nothing) -> bool:
        """Ask the ranks of every host, then kill."""
        seconds = job.work.stop_grace_seconds + STOP_SLACK_SECONDS
        answers = _each(_remotes(job), lambda remote: remote.on_run("stop", seconds), on_poll=on_poll)
        return all(answer["clean"] for answer in answers)

    def kill(self, job: JobDescription) -> None:
        """End every process on every host that answers."""
        _each(_remotes(job), lambda remote: remote.on_run("kill"), tolerant=True)

    def recover(self, job: JobDescription, ending: Ending, on_poll: OnPoll = nothing) -> None:
        """Wait until every host answers, then end what is left there."""
        deadline = time.monotonic() + _ssh(job.target).return_seconds
        while True:
            try:
                _each(_remotes(job), lambda remote: remote.on_run("kill"), on_poll=on_poll)
                return
            except NotReached:
                if time.monotonic() > deadline:
                    raise
            _pause(1.0, on_poll)

    def status(self, job: JobDescription) -> Status:
        """What every host says; one that doesn't answer is no error here."""
        if not _places_file(job).is_file():
            return Status(False, hosts={host.name: "not prepared" for host in _hosts(job)})
        remotes = _remotes(job)
        if not remotes:
            return Status(False, hosts={host.name: "not prepared" for host in _hosts(job)})
        answers = _each(remotes, lambda remote: remote.on_run("status", 20.0), tolerant=True)
        words = {r.name: _words(answer) for r, answer in zip(remotes, answers, strict=True)}
        ranks = {int(rank): pid for a in answers if a for rank, pid in a["rank_pids"].items()}
        first = answers[0]
        return Status(any(a and a["live"] for a in answers), first["launcher_pid"] if first else None, ranks, words)

    def fetch(self, job: JobDescription, say: Say, folders: Sequence[str] = ("artifacts",)) -> None:
        """Copy folders from the first host, which holds them whole; only files that differ travel."""
        first = _remotes(job)[0]
        theirs = first.call("digests", first.place.run, *folders, seconds=600.0)["digests"]
        wanted = [name for name, digest in theirs.items() if _differs(job.run / name, digest)]
        if wanted:
            _copy(first, job.run, wanted)
        for name in wanted:
            if _differs(job.run / name, theirs[name]):
                raise RunFailure(
                    f"{name} arrived changed from host {first.name}",
                    expected=f"sha256 {theirs[name]}",
                    action=f"`slipway fetch {job.id}` copies it again",
                )
        say(f"Fetched {', '.join(folders)} from {first.name}: {len(wanted)} of {len(theirs)} files were new.")


class _Watch:
    """One watch over all hosts of a job."""

    def __init__(self, job: JobDescription, remotes: Sequence[RemoteHost]) -> None:
        self._job, self._remotes = job, remotes
        self._mirror = Mirror(job.run)
        self._frames: Frames = queue.Queue()
        self._streams = {r.name: Stream(r, job.work, self._frames, self._mirror.positions(r.name)) for r in remotes}
        self._lost_after = _ssh(job.target).lost_after_seconds
        for stream in self._streams.values():
            stream.start()

    def to_the_end(self, on_poll: OnPoll) -> Ending:
        """Until all have ended; a host that is lost, or that failed alone for long, ends the others."""
        failed_at: float | None = None
        ending_others = False
        while len(self._mirror.ended) < len(self._remotes):
            self._take()
            on_poll()
            lost = self._silent()
            if lost:
                return self._after_a_loss(lost)
            if failed_at is None and any(self._mirror.ended.values()):
                failed_at = time.monotonic()
            if failed_at and not ending_others and time.monotonic() - failed_at > OTHERS_END_SECONDS:
                ending_others = True
                _each(self._remotes, lambda remote: remote.on_run("kill"), tolerant=True)
        self._take()
        return Ending({remote.name: self._mirror.ended[remote.name] for remote in self._remotes})

    def close(self) -> None:
        """Let go of the connections."""
        for stream in self._streams.values():
            stream.close()
        self._mirror.close()

    def _take(self) -> None:
        """Feed the mirror what has come within a moment."""
        deadline = time.monotonic() + POLL_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                host, line = self._frames.get(timeout=left)
            except queue.Empty:
                break
            self._mirror.feed(host, line)
        self._mirror.flush()

    def _silent(self) -> list[str]:
        now = time.monotonic()
        return [
            name
            for name, stream in self._streams.items()
            if name not in self._mirror.ended and now - stream.heard > self._lost_after
        ]

    def _after_a_loss(self, lost: list[str]) -> Ending:
        """End the ranks that wait for the lost host's, and take their last words."""
        others = [remote for remote in self._remotes if remote.name not in lost]
        _each(others, lambda remote: remote.on_run("kill"), tolerant=True)
        deadline = time.monotonic() + OTHERS_END_SECONDS
        while any(r.name not in self._mirror.ended for r in others) and time.monotonic() < deadline:
            self._take()
        return Ending({remote.name: self._mirror.ended.get(remote.name) for remote in others}, tuple(lost))


def _hosts(job: JobDescription) -> list[Host]:
    return list(job.target.hosts[: job.work.hosts])


def _ssh(target: Target) -> SshSettings:
    return target.ssh or SshSettings()


def _places_file(job: JobDescription) -> Path:
    return job.run / "processes" / PLACES


def _write_places(job: JobDescription, places: dict[str, Place]) -> None:
    data = {name: asdict(place) for name, place in places.items()}
    atomic_write(_places_file(job), json.dumps(data, indent=1) + "\n")


def _remotes(job: JobDescription) -> list[RemoteHost]:
    """The job's hosts with what was prepared on them, the first first."""
    try:
        data = json.loads(_places_file(job).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(
            f"{job.id} was never prepared on its hosts",
            expected=f"{_places_file(job)}",
            action=f"start it with `slipway resume {job.id}`",
        ) from None
    hosts = {host.name: host for host in job.target.hosts}
    places = sorted(((name, Place(**place)) for name, place in data.items()), key=lambda pair: pair[1].node)
    # A resume may have left a host out that had its part before.
    return [RemoteHost(job.target, hosts[name], place) for name, place in places if name in hosts]


def _each(
    remotes: Sequence[RemoteHost],
    ask: Callable[[RemoteHost], dict[str, Any]],
    tolerant: bool = False,
    on_poll: OnPoll = nothing,
) -> list[Any]:
    """Ask all hosts at once. Tolerant: None for one that gives no answer; else the first error, once all are done."""
    if not remotes:
        return []
    with ThreadPoolExecutor(len(remotes)) as pool:
        asked: list[Future[dict[str, Any]]] = [pool.submit(ask, remote) for remote in remotes]
        while not all(future.done() for future in asked):
            _pause(POLL_SECONDS / 4, on_poll)
    if tolerant:
        return [None if future.exception() else future.result() for future in asked]
    return [future.result() for future in asked]


def _pause(seconds: float, on_poll: OnPoll) -> None:
    on_poll()
    time.sleep(seconds)


def _words(answer: dict[str, Any] | None) -> str:
    return "no answer" if answer is None else "running" if answer["live"] else "idle"


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or sha256_file(path) != digest


def _copy(remote: RemoteHost, run: Path, names: Sequence[str]) -> None:
    """Unpack the named files of a host's run directory into the one here."""
    words = ["tar", "-C", remote.place.run, "--null", "-T", "-", "-cf", "-"]
    listed = "\0".join(names).encode()
    sender = subprocess.Popen(
        ssh_command(remote.target, remote.host, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert sender.stdin is not None
    taker = subprocess.Popen(["tar", "-C", str(run), "--no-same-owner", "-xf", "-"], stdin=sender.stdout)
    sender.stdin.write(listed)
    sender.stdin.close()
    codes = taker.wait(), sender.wait()
    if any(codes):
        raise RunFailure(
            f"copying {len(names)} files from host {remote.name} failed (tar {codes[0]}, ssh {codes[1]})",
            expected="both to end with 0",
            action="see that the disk here has room, then `slipway fetch` again",
        )
