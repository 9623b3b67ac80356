"""The files of the house, as git would carry them to another machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Packages that are run from a checkout and never installed are no rooms.
NO_ROOMS = {"benchmarks", "tests"}
ROOMS = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - NO_ROOMS)
NOT_OURS = {".git", ".venv", ".cache", "runs", "build", "dist", "__pycache__", "node_modules"}


def _carried() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0 and listing.stdout:
        return [ROOT / name for name in listing.stdout.split("\0") if name]
    # A copy without git, as from an archive.
    return [path for path in ROOT.rglob("*") if not NOT_OURS & set(path.relative_to(ROOT).parts)]


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file that is committed, or would be."""
    found = sorted(path for path in _carried() if path.is_file() and not path.is_symlink())
    assert len(found) > 50, "the tests of style look at nothing"
    return found


@pytest.fixture(scope="session")
def python_files(files: list[Path]) -> list[Path]:
    return [path for path in files if path.suffix == ".py"]


@pytest.fixture(scope="session")
def texts(files: list[Path]) -> dict[str, str]:
    """Path from the root -> content, of every file that is text."""
    found = {}
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data[:8192] and path.suffix not in (".gz", ".png", ".jpg"):
            found[str(path.relative_to(ROOT))] = data.decode("utf-8", errors="replace")
    return found
