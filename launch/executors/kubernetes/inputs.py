"""Which files of a configuration have to be brought to the pods. They keep their relative paths there."""

from __future__ import annotations

import glob
from pathlib import Path, PurePosixPath

from kit.errors import UserError
from launch.executors.kubernetes.names import RUNS
from launch.job import JobDescription
from launch.recipe_files import ROOT


def brought_inputs(job: JobDescription) -> dict[str, Path]:
    """Relative path -> file here. Addresses are read by the pods themselves; what the code comes with, they have.

    Raises:
        UserError: An input has a path that means nothing in a container.
    """
    found: dict[str, Path] = {}
    base = job.working_directory or Path.cwd()
    for word in job.inputs:
        if "://" in word or word.startswith(f"{RUNS}/"):
            continue
        if PurePosixPath(word).is_absolute() or ".." in PurePosixPath(word).parts:
            raise UserError(
                f"the input {word} of {job.id}",
                expected=f"a relative path below the folder you start in, a URL, or a path on the volume ({RUNS}/...)",
                action="write it relative to a folder above the files, and start there",
            )
        for path in map(Path, sorted(glob.glob(str(base / word)))):
            if path.resolve().is_relative_to(ROOT):
                continue
            for file in sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]:
                found[file.relative_to(base).as_posix()] = file
    return found
