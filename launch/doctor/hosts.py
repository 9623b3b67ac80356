"""Asking hosts over ssh: who answers, whose clock is off, what each has, and who reaches whose ports."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from kit.errors import RunFailure
from kit.target import Host, Target
from launch.executors.ssh_command import ssh_command
from launch.executors.ssh_host import RemoteHost

REACH_SECONDS = 30.0
ASK_SECONDS = 90.0
LISTEN_SECONDS = 30.0
END_SECONDS = 5.0
CLOCK_LOOKS = 3
AT_ONCE = 32

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")
Answers = dict[str, dict[str, Any]]


def unreached(target: Target, hosts: Sequence[Host]) -> dict[str, str]:
    """The hosts that ssh doesn't get through to: name -> its words. Connections that work stay open for later."""

    def attempt(host: Host) -> str | None:
        try:
            done = _run(target, host, "true", seconds=REACH_SECONDS)
        except subprocess.TimeoutExpired:
            return f"no answer within {REACH_SECONDS:.0f} s"
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"

    answers = _at_once(attempt, hosts)
    return {host.name: words for host, words in zip(hosts, answers, strict=True) if words is not None}


def clock_skews(target: Target, hosts: Sequence[Host]) -> dict[str, float | None]:
    """How far each host's clock is certainly off this machine's, in seconds; None where it can't be told."""
    found = _at_once(lambda host: _skew(target, host), hosts)
    return {host.name: skew for host, skew in zip(hosts, found, strict=True)}


def least_skew(sent: float, read: float, received: float) -> float:
    """The smallest skew that explains a clock that was read somewhere between sending and receiving.

    Positive: the other clock is ahead; 0 where it may be right.
    """
    return max(read - received, 0.0) - max(sent - read, 0.0)


def facts_of(remotes: Sequence[RemoteHost], workdir: str) -> tuple[Answers, dict[str, str]]:
    """What every host says of itself and of the others' names.

    Returns:
        Facts by host, and words by host for those that gave none.
    """

    def ask(remote: RemoteHost) -> dict[str, Any] | str:
        peers = [other.host.reach for other in remotes if other is not remote]
        question = {"do": "facts", "workdir": workdir, "address": remote.host.reach, "peers": peers}
        try:
            return remote.call("check", json.dumps(question), seconds=ASK_SECONDS)
        except RunFailure as error:
            return error.found

    answers = dict(zip((remote.name for remote in remotes), _at_once(ask, remotes), strict=True))
    facts = {name: answer for name, answer in answers.items() if isinstance(answer, dict)}
    return facts, {name: answer for name, answer in answers.items() if isinstance(answer, str)}


def ports_reached(remotes: Sequence[RemoteHost]) -> tuple[dict[str, Answers], dict[str, str]]:
    """Tries a port of every host from every other one.

    Returns:
        from -> to -> `{"seconds"}` or `{"error"}`, and words by host for those that could not listen or ask.
    """
    with contextlib.ExitStack() as stack:
        opened = _at_once(lambda remote: stack.enter_context(_listening(remote)), remotes)
        mute = {r.name: "nothing listens there" for r, said in zip(remotes, opened, strict=True) if said is None}
        open_ports = {r.name: said for r, said in zip(remotes, opened, strict=True) if said is not None}
        addresses = {remote.name: remote.host.reach for remote in remotes}

        def ask(remote: RemoteHost) -> dict[str, Any] | str:
            others = {name: {**said, "address": addresses[name]} for name, said in open_ports.items()}
            others.pop(remote.name, None)
            try:
                answer = remote.call("check", json.dumps({"do": "connect", "to": others}), seconds=ASK_SECONDS)
            except RunFailure as error:
                return error.found
            return dict(answer["reached"])

        answers = dict(zip(addresses, _at_once(ask, remotes), strict=True))
    mute |= {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    return {name: answer for name, answer in answers.items() if isinstance(answer, dict)}, mute


def forget(remotes: Sequence[RemoteHost]) -> None:
    """Removes from the hosts the run directory that was made there only to ask; one that is gone is no matter."""

    def remove(remote: RemoteHost) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            _run(remote.target, remote.host, "rm", "-rf", "--", remote.place.run, seconds=REACH_SECONDS)

    _at_once(remove, remotes)


@contextlib.contextmanager
def _listening(remote: RemoteHost) -> Iterator[dict[str, Any] | None]:
    """A listener on a host for as long as the block lasts: it ends with its standard input."""
    words = remote.command("check", json.dumps({"do": "listen"}))
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], LISTEN_SECONDS)
        yield _object(process.stdout.readline()) if ready else None
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _skew(target: Target, host: Host) -> float | None:
    """The tightest of a few looks; the connection is open already, so that each takes milliseconds."""
    looks = []
    for _ in range(CLOCK_LOOKS):
        sent = time.time()
        try:
            done = _run(target, host, "date", "+%s.%N", seconds=REACH_SECONDS)
            looks.append((time.time() - sent, least_skew(sent, float(done.stdout), time.time())))
        except (ValueError, subprocess.TimeoutExpired):
            continue
    return min(looks)[1] if looks else None


def _run(target: Target, host: Host, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = ssh_command(target, host, *words)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "port" in found else None


def _at_once(ask: Callable[[AskedT], AnswerT], asked: Sequence[AskedT]) -> list[AnswerT]:
    if not asked:
        return []
    with ThreadPoolExecutor(min(len(asked), AT_ONCE)) as pool:
        return list(pool.map(ask, asked))
