"""Which files a folder holds on a host, by checksum, so that only what differs has to travel. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digests(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """File -> sha256 of every file at or below the paths; relative to the root, in order."""
    found = {}
    for path in paths:
        start = root / path
        files = [start] if start.is_file() else sorted(item for item in start.rglob("*") if item.is_file())
        for file in files:
            with file.open("rb") as stream:
                found[file.relative_to(root).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
