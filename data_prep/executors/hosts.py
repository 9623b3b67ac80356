"""Several hosts at work on one run directory: they find each other, share out tasks and wait, all through its files.

Everything here is files made in folders that all hosts see. It needs from the storage: a file that is there for one is
there for all, a file made with O_EXCL is made once, and a rename is whole. NFS, Lustre, CephFS and a ReadWriteMany
volume do that; object stores mounted as folders do not.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.executors.tasks import looks
from kit.errors import RunFailure, SlipwayError, UserError
from kit.files import atomic_write

MEET_SECONDS = 600.0  # pods of one job may start minutes apart
BEAT_SECONDS = 5.0
LOST_SECONDS = 120.0  # a network file system may show a file's change a minute late
_FAILED, _BEAT, _GONE = "failed-", "beat-", "gone-"


@dataclass
class Hosts:
    """The hosts of one attempt at a run, as one of them sees them.

    Attributes:
        folder: where this attempt's marks lie; of no use where there is one host.
        index: this host's number, from 0.
        count: how many there are.
    """

    folder: Path = Path()
    index: int = 0
    count: int = 1
    _beats: dict[int, tuple[str, float]] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether this host does what is done once: progress, single steps, the card."""
        return self.index == 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody to wait for."""
        return self.count == 1

    @contextmanager
    def first_only(self, name: str) -> Iterator[bool]:
        """Something that the first host does while the others wait until it is done.

        Args:
            name: one that no other such part of a run has.

        Yields:
            Whether this host is the one.
        """
        yield self.first
        if self.alone:
            return
        if self.first:
            self._mark(f"done-{name}")
        else:
            self.wait(lambda: f"done-{name}" in self._marks())

    def only_first_remains(self) -> bool:
        """For the end of a run: whether this host is the first, which waits here until the others have left.

        Nobody looks at the run's working files any more after that, so that they can be removed.
        """
        if self.first and not self.alone:
            others = {f"{_GONE}{index}" for index in range(1, self.count)}
            self.wait(lambda: others <= self._marks())
        elif not self.first:
            self._mark(f"{_GONE}{self.index}")
        return self.first

    def agree(self, name: str, value: str) -> None:
        """See that all hosts have found the same.

        Raises:
            UserError: this host has found something else than the first.
        """
        if self.alone:
            return
        path = self.folder / f"found-{name}"
        if self.first:
            atomic_write(path, value)
            return
        self.wait(lambda: path.name in self._marks())
        if path.read_text(encoding="utf-8") != value:
            raise UserError(
                f"host {self.index} finds other {name} than host 0",
                expected=f"the same {name} on every host",
                action="put them on the storage that all hosts share, or copy them to every host",
            )

    def claim(self, step: str, rank: int) -> bool:
        """Take a task of a step for this host; False where another has taken it."""
        if self.alone:
            return True
        folder = self.folder / f"claims-{step}"
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder / f"{rank:05d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        os.write(handle, b"%d" % self.index)  # for people who look who did what
        os.close(handle)
        return True

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            RunFailure: another host has failed, or is not heard of any more.
        """
        for _ in looks():
            if condition():
                return
            self.check()

    def check(self) -> None:
        """Raise a RunFailure where another host has failed or gone."""
        if self.alone:
            return
        for name in sorted(self._marks()):
            if name.startswith(_FAILED):
                told = _read_parts(self.folder / name)
                raise RunFailure(f"host {name.removeprefix(_FAILED)} has failed: {told['found']}", **_rest(told))
        self._listen()

    def fail(self, error: dict[str, str]) -> None:
        """Tell the others that this host fails; what it was told itself needs no repeating."""
        if not self.alone:
            with suppress(SlipwayError, OSError):
                atomic_write(self.folder / f"{_FAILED}{self.index}", json.dumps(error))

    def beat(self) -> None:
        """Start to give signs of life, until this process ends."""
        if not self.alone:
            path = self.folder / f"{_BEAT}{self.index}"
            threading.Thread(target=_beat, args=(path, os.getpid()), daemon=True).start()

    def _listen(self) -> None:
        """See that the others' signs of life go on. Clocks of hosts are not compared."""
        now = time.monotonic()
        for index in range(self.count):
            last, since = self._beats.get(index, ("", now))
            if index == self.index or now - since < BEAT_SECONDS:
                self._beats.setdefault(index, (last, since))
                continue
            beat = _read(self.folder / f"{_BEAT}{index}")
            if beat != last:
                self._beats[index] = (beat, now)
            elif now - since > LOST_SECONDS and f"{_GONE}{index}" not in self._marks():
                raise RunFailure(
                    f"host {index} has given no sign of life for {LOST_SECONDS:.0f} s",
                    expected="every host to live until its work is done",
                    action="see what happened there, then `slipway resume` the run: finished tasks are not repeated",
                )

    def _mark(self, name: str) -> None:
        atomic_write(self.folder / name, "")

    def _marks(self) -> set[str]:
        return set(os.listdir(self.folder))


def meet(folder: Path, index: int, count: int, seconds: float = MEET_SECONDS) -> Hosts:
    """Find the other hosts of this attempt, which starts at about the same time on all of them.

    An earlier attempt's files may still lie there. So the first host asks with a number that was never used, each
    other one answers with one of its own, and goes when it sees that repeated.

    Args:
        folder: seen by all hosts.
        index: this host's number.
        count: how many there are.
        seconds: how long the others may take to come.

    Raises:
        RunFailure: they don't come, or see another folder.
    """
    if count == 1:
        return Hosts()
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(6)
    deadline = time.monotonic() + seconds
    attempt = _call(folder, token, count, deadline) if index == 0 else _answer(folder, token, index, deadline)
    hosts = Hosts(folder / attempt, index, count)
    hosts.beat()
    return hosts


def _call(folder: Path, attempt: str, count: int, deadline: float) -> str:
    (folder / attempt).mkdir()
    atomic_write(folder / "attempt", attempt)
    answers: dict[int, str] = {}
    for _ in looks():
        for index in range(1, count):
            said, _, token = _read(folder / f"answer-{index}").partition(" ")
            if said == attempt:
                answers[index] = token
        if len(answers) == count - 1:
            atomic_write(folder / "go", " ".join([attempt, *answers.values()]))
            return attempt
        if time.monotonic() > deadline:
            raise _alone([index for index in range(1, count) if index not in answers], folder)
    raise AssertionError


def _answer(folder: Path, token: str, index: int, deadline: float) -> str:
    said = ""
    for _ in looks():
        attempt = _read(folder / "attempt")
        if attempt and attempt != said:
            atomic_write(folder / f"answer-{index}", f"{attempt} {token}")
            said = attempt
        going, *tokens = _read(folder / "go").split() or [""]
        if token in tokens:
            return going
        if time.monotonic() > deadline:
            raise _alone([0], folder)
    raise AssertionError


def _alone(missing: list[int], folder: Path) -> RunFailure:
    return RunFailure(
        f"no answer from host {', '.join(map(str, missing))} through {folder}",
        expected="a run directory on storage that every host sees under this path",
        action="see that it is mounted on all of them, then `slipway resume` the run",
    )


def _beat(path: Path, process: int) -> None:
    """Plain system calls: a worker that is forked meanwhile must find no lock of Python's held."""
    count = 0
    while os.getpid() == process:
        count += 1
        with suppress(OSError):
            handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o666)
            os.pwrite(handle, b"%012d" % count, 0)
            os.close(handle)
        time.sleep(BEAT_SECONDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _read_parts(path: Path) -> dict[str, str]:
    try:
        parts: dict[str, str] = json.loads(_read(path))
    except ValueError:
        parts = {}
    return {"found": "it left no word", "expected": "every host to finish", "action": "see its log", **parts}


def _rest(parts: dict[str, str]) -> dict[str, str]:
    return {"expected": parts["expected"], "action": parts["action"]}
