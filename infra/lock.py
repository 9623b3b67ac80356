"""Writes requirements/lock.txt from the environment that it runs in: `python -m infra.lock`.

Change a version with pip in .venv, run the checks and tests, then write the lock. Local version tags are dropped
(`2.13.0+cpu` becomes `2.13.0`), so that one file serves machines with and without GPUs; the CUDA libraries that
torch asks for are left to torch.
"""

from __future__ import annotations

import sys

from infra.environment import LOCK, installed_pins

HEADER = """\
# Every package of the environment, in the versions that were tried together on Python 3.11 (`pip check` is clean).
# Installed by `make setup`; written by `python -m infra.lock`.
"""


def main() -> int:
    """Writes the lock and says how many packages it names."""
    lines = sorted((pin.split("+")[0] for pin in installed_pins(sys.executable)), key=str.lower)
    LOCK.parent.mkdir(exist_ok=True)
    LOCK.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{LOCK}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
