"""Files that are whole or absent, and what to say when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.errors import RunFailure, UserError

_CHUNK = 1 << 20


@contextmanager
def disk_full_as_failure(path: Path) -> Iterator[None]:
    """Turns "no space left" (and a quota that is spent) into a RunFailure naming the place; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunFailure(
            f"no space left on the disk while writing {path}",
            expected="room for the file; what was finished before is untouched",
            action="free some space or choose another place (--runs DIR), then `slipway resume` the run",
        ) from error


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Raises:
        RunFailure: If the disk is full; the old file is still there then.
    """
    data = content.encode() if isinstance(content, str) else content
    with disk_full_as_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner reads; give them what a plain open() would have given.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder durable before something else is said to depend on them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_bytes(data: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def require_file(path: Path, what: str) -> Path:
    """Returns the path if it is a file.

    Args:
        path: Where the file should be.
        what: What the file is, in words, for the error.

    Raises:
        UserError: If there is none.
    """
    if path.is_file():
        return path
    kind = "a folder" if path.is_dir() else "no file"
    raise UserError(
        f"{kind} at {path}",
        expected=f"{what}",
        action="check the path" if path.parent.is_dir() else f"check the path: its folder {path.parent} is missing too",
    )


def read_record(path: Path, what: str, *, newest_schema: int) -> dict[str, Any]:
    """Reads a JSON mapping that carries a `schema_version`.

    Args:
        path: The file.
        what: What the file is, in words, for the error.
        newest_schema: The highest version that this code understands.

    Raises:
        UserError: If the file is missing, damaged, or of a later schema.
    """
    require_file(path, what)
    try:
        data = json.loads(path.read_bytes())
        version = int(data.get("schema_version", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged: {error}", expected=what, action="copy it again, or make it again with a new run"
        ) from None
    if version > newest_schema:
        raise UserError(
            f"{path}: schema version {version}",
            expected=f"at most {newest_schema}",
            action="use the newer Slipway that wrote this file",
        )
    return dict(data)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
