"""Writes a model of a run as a Hugging Face directory, holding one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kit.run.directory import RunDirectory
from recipes.export.source import Exported
from recipes.export.target import MARK
from recipes.model.huggingface import write_directory
from recipes.model.weight_files import is_weights

SCHEMA_VERSION = 1


class Form(NamedTuple):
    """What weights become on disk: "fp32" or "bf16", in files of at most `shard_gib`."""

    dtype: str
    shard_gib: float


def write_exported(exported: Exported, run: RunDirectory, directory: Path, form: Form) -> dict[str, Any]:
    """Writes the directory; it gets its name when it is complete.

    Returns:
        What was written, as data.

    Raises:
        RunFailure: If the disk is full; nothing half-written stays.
    """
    described = exported.described
    facts = {
        "schema_version": SCHEMA_VERSION,
        "run": run.id,
        "stage": exported.recipe.stage,
        "step": exported.step,
        "source": str(exported.folder.relative_to(run.path)),
        "config_digest": run.manifest().config_digest,
        "dtype": form.dtype,
    }
    write_directory(
        directory,
        described.model,
        described.positions,
        described.ids,
        exported.tensors(),
        described.tokenizer,
        dtype=form.dtype,
        shard_gib=form.shard_gib,
        beside={MARK: facts},
    )
    files = sorted(path for path in directory.iterdir() if is_weights(path.name))
    return {
        **{key: value for key, value in facts.items() if key not in ("schema_version", "config_digest")},
        "directory": str(directory),
        "files": [path.name for path in files],
        "bytes": sum(path.stat().st_size for path in files),
    }
