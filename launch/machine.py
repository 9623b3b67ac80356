"""What this machine has, asked without torch, and which code runs on it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "megatron-core",
    "deepspeed",
    "accelerate",
    "transformers",
    "peft",
    "trl",
    "lm_eval",
    "tokenizers",
    "safetensors",
    "sentencepiece",
    "datatrove",
    "numpy",
    "pydantic",
)


def accelerator_count() -> int:
    """CUDA devices that a new process would see: the device files, as CUDA_VISIBLE_DEVICES narrows them."""
    devices = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(devices)
    named = [word for word in visible.split(",") if word.strip() not in ("", "-1", "NoDevFiles")]
    return min(len(named), len(devices))


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; a package that is not there is left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(root: Path) -> tuple[str | None, str | None]:
    """The commit of a checkout, and a digest of what differs from it.

    Returns:
        (commit, digest); both None outside a git checkout, the digest None in a clean one.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if top is None or commit is None or Path(top.decode().strip()).resolve() != root.resolve():
        return None, None
    # The list of changed names catches new files, which a diff against the commit leaves out.
    changes = (_git(root, "status", "--porcelain") or b"") + (_git(root, "diff", "HEAD") or b"")
    digest = "sha256:" + hashlib.sha256(changes).hexdigest() if changes else None
    return commit.decode().strip(), digest


def _git(root: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(("git", "-C", str(root), *words), capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
