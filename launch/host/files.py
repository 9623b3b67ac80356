"""Which files a run directory holds on a host, by checksum, so that only what differs has to travel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kit.files import sha256_file


def digests(run: Path, folders: Iterable[str]) -> dict[str, str]:
    """Path relative to the run directory -> SHA-256, of every file under some of its folders."""
    paths = [path for name in folders for path in sorted((run / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(run)): sha256_file(path) for path in paths}
