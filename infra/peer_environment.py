"""Sets up .venv-peers: stock datatrove, the peer of `make bench-data` (`python -m infra.peer_environment`).

Everything is pinned by requirements/peers.txt. A second call finds the stamp of the first and does nothing.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from infra.environment import GIB, ONLINE, ROOT, SetupError, check_python, run
from kit.errors import UserError
from kit.files import sha256_file

LOCK = ROOT / "requirements" / "peers.txt"
VENV = ROOT / ".venv-peers"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "slipway-setup"
FREE_GIB = 1


def stamp_text() -> str:
    """Returns a finished set-up's stamp."""
    return "\n".join((sha256_file(LOCK), sys.version.split()[0])) + "\n"


def is_ready() -> bool:
    """Whether the environment is there, as the lock has it."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp_text()


def require() -> Path:
    """Returns the environment's Python.

    Raises:
        UserError: It has not been set up.
    """
    if not is_ready():
        raise UserError(
            f"no finished environment of the peers in {VENV}",
            expected="stock datatrove and what it needs, which have an environment of their own",
            action=f"make it with `{sys.executable} -m infra.peer_environment` (about a minute)",
        )
    return PYTHON


def install() -> None:
    """Makes .venv-peers and fills it."""
    free = shutil.disk_usage(ROOT).free / GIB
    if free < FREE_GIB:
        raise SetupError(f"{free:.1f} GiB free on the disk that holds {ROOT}", f"{FREE_GIB} GiB", "free some space")
    # Afresh, so that nothing stays that an earlier lock has brought.
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)], "Making .venv-peers", "remove .venv-peers and try again")
    pip = [str(PYTHON), "-m", "pip", "install", "--no-deps", "-r", str(LOCK)]
    run(pip, "Installing requirements/peers.txt", ONLINE)


def main() -> int:
    """Sets up, or does nothing where everything is there."""
    try:
        check_python()
        if is_ready():
            return 0
        install()
        STAMP.write_text(stamp_text(), encoding="utf-8")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    print("The peers' environment is ready. Next: `make bench-data`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
