"""What a run's checkpoints belong to: data, tokenizer, model, engine. Another one can't go on from them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from math import prod

from kit.config import digest
from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.manifest import parent_path
from kit.tokens.card import CARD_NAME, DatasetCard, read_card
from recipes.checkpoint.manifest import CheckpointManifest, Origin
from recipes.model.config import ModelConfig
from recipes.training.config import TrainingConfig

Compared = tuple[str, str | int | None, str | int | None]
"""What it is, what it was, what it is now."""

PACKAGES = ("torch", "megatron-core", "deepspeed", "accelerate")


def origin_of(config: TrainingConfig, run: RunDirectory) -> Origin:
    """What the checkpoints of a run belong to, as far as its recipe and the cards of its parents tell."""
    cards = _cards(run)
    model, parameters = getattr(config, "model", None), None
    if isinstance(model, ModelConfig):
        vocabularies = {card.tokenizer.vocab_size for card in cards.values()}
        if len(vocabularies) == 1:
            model = model.with_vocab(vocabularies.pop(), config.data.sequence_length)
            parameters = sum(prod(shape) for shape in model.tensor_shapes().values())
    return Origin(
        engine=config.engine,
        # Without what is as it always was: a setting that a later Slipway adds changes no older model.
        model=digest(model.model_dump(mode="json", exclude_defaults=True)) if isinstance(model, ModelConfig) else None,
        parameters=parameters,
        data={name: _shards_digest(card) for name, card in cards.items()},
        tokenizers={name: card.tokenizer.fingerprint for name, card in cards.items()},
    )


def package_versions() -> dict[str, str]:
    """The versions of what writes checkpoints here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_origin(folder_name: str, manifest: CheckpointManifest, now: Origin) -> None:
    """Refuses to go on from a state that belongs to something else.

    Raises:
        UserError: Naming everything that differs.
    """
    before = manifest.origin
    differences = [] if before is None else _differences(before, now)
    if differences:
        raise UserError(
            f"checkpoint {folder_name} belongs to something else than this run is now: {'; '.join(differences)}",
            expected="the data, tokenizer, model and engine that it was written with; only the layout may change",
            action="put back what was changed (`slipway check` judges data), or start a new run",
        )


def _differences(before: Origin, now: Origin) -> list[str]:
    pairs: list[Compared] = [("engine", before.engine, now.engine)]
    pairs += _by_parent("data", before.data, now.data)
    pairs += _by_parent("tokenizer", before.tokenizers, now.tokenizers)
    pairs += [("model", before.model, now.model), ("parameters", before.parameters, now.parameters)]
    return [f"{what} was {old}, is {new}" for what, old, new in pairs if old != new]


def _by_parent(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[Compared]:
    names = dict.fromkeys([*before, *now])
    return [(f"{what} of parent `{name}`", before.get(name), now.get(name)) for name in names]


def _cards(run: RunDirectory) -> dict[str, DatasetCard]:
    """The dataset cards among a run's parents."""
    if not run.manifest_path.exists():
        return {}
    folders = {name: parent_path(run, parent) / "artifacts" for name, parent in run.manifest().parents.items()}
    return {name: read_card(path / CARD_NAME) for name, path in sorted(folders.items()) if (path / CARD_NAME).exists()}


def _shards_digest(card: DatasetCard) -> str:
    """Over the checksums of all shards: the same data prepared a second time has the same."""
    return digest({name: [split.sha256_bin, split.sha256_idx] for name, split in card.splits.items()})
