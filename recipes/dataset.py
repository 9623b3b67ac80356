"""What a training run reads from its parent: shards, card and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
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


def open_datasets(run: RunDirectory, blend: Mapping[str, float]) -> dict[str, Dataset]:
    """Opens and checks the shards of every source of a blend, or of the parent `data`, by the parent's name.

    Raises:
        UserError: If anything about one of them doesn't fit together, or two have different tokenizers.
    """
    datasets = {name: open_dataset(run, name) for name in blend or ("data",)}
    check_one_tokenizer(datasets)
    return datasets


def check_one_tokenizer(datasets: Mapping[str, Dataset]) -> None:
    """Refuses a blend of shards whose ids mean different tokens.

    Raises:
        UserError: If two sources have different tokenizers; names both.
    """
    (first, reference), *others = ((name, data.card.tokenizer) for name, data in datasets.items())
    for name, tokenizer in others:
        if (tokenizer.fingerprint, tokenizer.eod_id) != (reference.fingerprint, reference.eod_id):
            raise UserError(
                f"data.blend: tokenizer {reference.fingerprint} made the shards of `{first}`, and "
                f"{tokenizer.fingerprint} those of `{name}`",
                expected="sources whose shards one tokenizer has made",
                action=f"prepare `{name}` again with `{first}`'s tokenizer, or take it out of the blend and parents",
            )
