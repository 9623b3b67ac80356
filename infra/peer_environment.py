"""Sets up .venv-peers: stock datatrove, the peer of `make bench-data` (`python -m infra.peer_environment`)."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.side_environment import SideEnvironment

PEERS = SideEnvironment(
    folder=".venv-peers",
    lock="peers.txt",
    what="environment of the peers",
    holds="stock datatrove and what it needs",
    command=f"{sys.executable} -m infra.peer_environment",
)


LOCK = PEERS.lock_path


def is_ready() -> bool:
    """Whether the environment is there, as the lock has it."""
    return PEERS.is_ready()


def require() -> Path:
    """Returns the environment's Python.

    Raises:
        UserError: It has not been set up.
    """
    return PEERS.require() / "python"


def main() -> int:
    """Sets up, or does nothing where everything is there."""
    return PEERS.set_up("The peers' environment is ready. Next: `make bench-data`.")


if __name__ == "__main__":
    sys.exit(main())
