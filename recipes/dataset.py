"""What a training run reads from its parent: shards, card and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.manifest import parent_path
from kit.tokens.card import DatasetCard
from kit.tokens.check import check_shards
from kit.tokens.shards import Shard


@dataclass(frozen=True)
class Dataset:
    """A checked set of shards."""

    folder: Path
    card: DatasetCard

    def tokens(self, split: str) -> npt.NDArray[np.generic]:
        """The flat tokens of a split, on disk.

        Raises:
            UserError: If the card has no such split.
        """
        if split not in self.card.splits:
            raise UserError(
                f"{self.folder}: splits {', '.join(self.card.splits) or '(none)'}",
                expected=f"a split named {split}",
                action="run data_prep again",
            )
        return Shard(self.folder / self.card.splits[split].prefix).tokens

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer's files."""
        return (self.folder / self.card.tokenizer.file).parent


def parent_artifacts(run: RunDirectory, name: str) -> Path:
    """The artifacts of a parent run.

    Raises:
        UserError: If the manifest names no such parent, or its folder is gone.
    """
    parents = run.manifest().parents
    if name not in parents:
        raise UserError(
            f"{run.manifest_path}: no parent `{name}`",
            expected=f"a finished run named under parents.{name} in the recipe",
            action=f"start the run again with --parent {name}=RUN",
        )
    folder = parent_path(run, parents[name]) / "artifacts"
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}",
            expected=f"the artifacts of run {parents[name].run_id}",
            action="put that run back where it was, or start again with another parent",
        )
    return folder


def open_dataset(run: RunDirectory, parent: str = "data") -> Dataset:
    """Opens and checks the parent's shards.

    Every rank does this, so it is the fast check: indexes, counts, sizes, the tokenizer's fingerprint and a bounded
    sample of ids. `slipway check` reads every token.

    Raises:
        UserError: If anything about them doesn't fit together.
    """
    folder = parent_artifacts(run, parent)
    return Dataset(folder, check_shards(folder, fast=True))
