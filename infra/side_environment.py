"""An environment of its own, beside .venv, for packages that clash with the lock: made from a lock of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.environment import GIB, ONLINE, ROOT, SetupError, check_python, run
from kit.errors import UserError
from kit.files import sha256_file

_FREE_GIB = 1


@dataclass(frozen=True)
class SideEnvironment:
    """Everything in it is pinned; a second set-up finds the stamp of the first and does nothing.

    Attributes:
        folder: its name, beside the project.
        lock: the name of its lock in requirements/.
        what: it is, in an error's words.
        holds: what is in it.
        command: what makes it.
        marks: what else its stamp depends on.
    """

    folder: str
    lock: str
    what: str
    holds: str
    command: str
    marks: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where it is."""
        return ROOT / self.folder

    @property
    def programs(self) -> Path:
        """Its folder of programs."""
        return self.path / "bin"

    def is_ready(self) -> bool:
        """Whether it is there, as the lock has it."""
        return self._stamp.is_file() and self._stamp.read_text(encoding="utf-8") == self._stamp_text()

    def require(self) -> Path:
        """Returns its folder of programs.

        Raises:
            UserError: It has not been set up.
        """
        if not self.is_ready():
            raise UserError(
                f"no finished {self.what} in {self.path}",
                expected=f"{self.holds}, which have an environment of their own",
                action=f"make it with `{self.command}` (about a minute)",
            )
        return self.programs

    def set_up(self, ready: str, finish: Callable[[Path], None] | None = None) -> int:
        """Makes it, or does nothing where everything is there. Returns an exit code.

        Args:
            ready: what to say at the end.
            finish: called with its Python once the lock is installed.
        """
        try:
            check_python()
            if self.is_ready():
                return 0
            self._install()
            if finish:
                finish(self.programs / "python")
            self._stamp.write_text(self._stamp_text(), encoding="utf-8")
        except SetupError as error:
            print(error, file=sys.stderr)
            return 1
        print(ready)
        return 0

    def _install(self) -> None:
        free = shutil.disk_usage(ROOT).free / GIB
        if free < _FREE_GIB:
            raise SetupError(
                f"{free:.1f} GiB free on the disk that holds {ROOT}", f"{_FREE_GIB} GiB", "free some space"
            )
        # Afresh, so that nothing stays that an earlier lock has brought.
        shutil.rmtree(self.path, ignore_errors=True)
        make = [sys.executable, "-m", "venv", str(self.path)]
        run(make, f"Making {self.folder}", f"remove {self.folder} and try again")
        pip = [str(self.programs / "python"), "-m", "pip", "install", "--no-deps", "-r", str(self.lock_path)]
        run(pip, f"Installing requirements/{self.lock}", ONLINE)

    @property
    def lock_path(self) -> Path:
        """The lock."""
        return ROOT / "requirements" / self.lock

    @property
    def _stamp(self) -> Path:
        return self.path / "slipway-setup"

    def _stamp_text(self) -> str:
        return "\n".join((sha256_file(self.lock_path), *self.marks, sys.version.split()[0])) + "\n"
