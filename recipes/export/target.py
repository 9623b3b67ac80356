"""Where an export goes. Torch-free: what can't be written is refused at once."""

from __future__ import annotations

from pathlib import Path

from kit.errors import UserError

MARK = "export.json"
"""What tells an export from any other folder, and from which run and step it is."""


def check_target(directory: Path, *, force: bool) -> None:
    """Refuses to write where something is.

    Raises:
        UserError: If the directory exists, unless it is an earlier export that is to be replaced.
    """
    if not directory.exists() and not directory.is_symlink():
        return
    earlier = (directory / MARK).is_file()
    if earlier and force:
        return
    raise UserError(
        f"{directory} exists" + (" and is an earlier export" if earlier else ""),
        expected="a directory that isn't there yet",
        action="add --force to replace it" if earlier else "choose another one with --to",
    )
