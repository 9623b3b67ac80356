"""What a complete checkpoint says about itself, in the file COMPLETE that is written last."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic

from kit.config import Config
from kit.files import atomic_write, sha256_file

COMPLETE = "COMPLETE"
SCHEMA_VERSION = 1


class FileDigest(Config):
    """One file of a checkpoint; `path` is relative to its folder."""

    path: str
    bytes: int
    sha256: str


class CheckpointManifest(Config):
    """The state after `step` optimizer steps.

    Attributes:
        samples_seen: Where the data order goes on: samples consumed by the whole job.
        layout: Which layout wrote it, as plain data.
        notes: Numbers that the stage wants back after a restart.
    """

    schema_version: int = SCHEMA_VERSION
    step: int
    samples_seen: int
    engine: str
    layout: dict[str, int | bool]
    config_digest: str
    notes: dict[str, float] = {}
    files: list[FileDigest] = []


def digest_files(folder: Path) -> list[FileDigest]:
    """Sizes and SHA-256 of every file under a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE)
    return [
        FileDigest(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=sha256_file(path))
        for path in paths
    ]


def write_complete(folder: Path, manifest: CheckpointManifest) -> None:
    """Writes COMPLETE, whole or not at all."""
    atomic_write(folder / COMPLETE, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def read_complete(folder: Path) -> CheckpointManifest | str:
    """Reads and verifies a checkpoint: its manifest if every file is as it was written, or else what is wrong."""
    try:
        manifest = CheckpointManifest.model_validate_json((folder / COMPLETE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {COMPLETE} file"
    except (pydantic.ValidationError, UnicodeDecodeError):
        return f"its {COMPLETE} file is damaged"
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            return f"{file.path} is missing"
        if path.stat().st_size != file.bytes:
            return f"{file.path} has {path.stat().st_size} bytes instead of {file.bytes}"
        if sha256_file(path) != file.sha256:
            return f"{file.path} differs from its checksum"
    return manifest
