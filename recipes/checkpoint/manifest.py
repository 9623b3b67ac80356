"""What a complete checkpoint says about itself, in the file COMPLETE that is written last."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic

from kit.config import Config
from kit.errors import UserError
from kit.files import atomic_write, sha256_bytes, sha256_file

COMPLETE = "COMPLETE"
SCHEMA_VERSION = 2
SEAL = "sha256"


class FileDigest(Config):
    """One file of a checkpoint; `path` is relative to its folder."""

    path: str
    bytes: int
    sha256: str


class Origin(Config):
    """What a training state belongs to; with anything else it would go on as something that nobody trained.

    Attributes:
        engine: Its name.
        model: Digest of the model's configuration; None where the recipe has none (a model that a parent made).
        parameters: How many the model has, where that is known before it is built.
        data: Parent -> digest of its dataset card, which holds the digests of its shards.
        tokenizers: Parent -> fingerprint of its tokenizer.
    """

    engine: str
    model: str | None = None
    parameters: int | None = None
    data: dict[str, str] = {}
    tokenizers: dict[str, str] = {}


class CheckpointManifest(Config):
    """The state after `step` optimizer steps.

    Attributes:
        samples_seen: Where the data order goes on: samples consumed by the whole job.
        layout: Which layout wrote it, as plain data.
        notes: Numbers that the stage wants back after a restart.
        origin: What it belongs to.
        versions: Of the packages that wrote it.
    """

    schema_version: int = SCHEMA_VERSION
    step: int
    samples_seen: int
    engine: str
    layout: dict[str, int | bool]
    config_digest: str
    notes: dict[str, float] = {}
    origin: Origin | None = None
    versions: dict[str, str] = {}
    files: list[FileDigest] = []


def file_names(folder: Path) -> list[str]:
    """The files of a checkpoint, relative to its folder, sorted."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != COMPLETE)


def digest_file(folder: Path, name: str) -> FileDigest:
    """Size and SHA-256 of one file."""
    path = folder / name
    return FileDigest(path=name, bytes=path.stat().st_size, sha256=sha256_file(path))


def write_complete(folder: Path, manifest: CheckpointManifest) -> None:
    """Writes COMPLETE, whole or not at all, with a checksum of its own."""
    data = manifest.model_dump(mode="json")
    atomic_write(folder / COMPLETE, json.dumps(data | {SEAL: _seal(data)}, indent=1) + "\n")


def read_complete(folder: Path) -> CheckpointManifest | str:
    """Reads what a checkpoint says of itself, or else what is wrong with that.

    Raises:
        UserError: If it was written in another schema: it is not damaged, and not to be passed over.
    """
    damaged = f"its {COMPLETE} file is damaged"
    try:
        data = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        version = int(data["schema_version"])
    except FileNotFoundError:
        return f"it has no {COMPLETE} file"
    except (ValueError, TypeError, KeyError):
        return damaged
    seal = data.pop(SEAL, None)
    unsealed = seal is None and version < SCHEMA_VERSION  # the first schema had no seal
    if not unsealed and seal != _seal(data):
        return damaged
    if version != SCHEMA_VERSION:
        raise _other_schema(folder, version)
    try:
        return CheckpointManifest.model_validate(data)
    except pydantic.ValidationError:
        return damaged


def check_files(folder: Path, files: Iterable[FileDigest]) -> str | None:
    """What is wrong with the first file that isn't as it was written, or None."""
    for file in files:
        path = folder / file.path
        if not path.is_file():
            return f"{file.path} is missing"
        if path.stat().st_size != file.bytes:
            return f"{file.path} has {path.stat().st_size} bytes instead of {file.bytes}"
        if sha256_file(path) != file.sha256:
            return f"{file.path} differs from its checksum"
    return None


def _seal(data: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(data, sort_keys=True).encode())


def _other_schema(folder: Path, version: int) -> UserError:
    older = version < SCHEMA_VERSION
    return UserError(
        f"checkpoint {folder}: schema version {version}",
        expected=f"schema version {SCHEMA_VERSION}, which this Slipway writes and reads",
        action=(
            "finish the run with the Slipway that wrote it (git_commit in the run's manifest.json says which), "
            "or start it anew"
            if older
            else "use the newer Slipway that wrote it"
        ),
    )
