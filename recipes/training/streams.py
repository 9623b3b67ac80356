"""The samples of a run: of one dataset, or of a blend of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.blend import BlendStream, shares, source_seed
from recipes.data import BatchSource, SampleStream
from recipes.dataset import Dataset
from recipes.training.config import TokenDataConfig, TrainingConfig


class Streams:
    """What a run trains on and is validated with.

    Attributes:
        train: The training samples; a blend's where the recipe has one.
        validation: The held-out samples of every source, in the order of the text, by the source's name.
        shares: The sources' parts of the training samples, which add up to 1.
        blended: Whether the recipe has a blend.

    Args:
        config: The recipe.
        datasets: Checked shards by the name of their parent, as `open_datasets` gives them.
    """

    def __init__(self, config: TrainingConfig, datasets: Mapping[str, Dataset]) -> None:
        data = config.data if isinstance(config.data, TokenDataConfig) else None
        masked = data is not None and data.reset_attention
        blend = data.blend if data is not None else {}
        self.blended = bool(blend)
        self.shares = shares(blend) if blend else dict.fromkeys(datasets, 1.0)

        def stream(name: str, split: str) -> SampleStream:
            dataset, training = datasets[name], split == "train"
            return SampleStream(
                dataset.tokens(split),
                config.data.sequence_length,
                source_seed(config.seed, name) if training and blend else config.seed,
                shuffle=training,
                eod_id=dataset.card.tokenizer.eod_id if masked else None,
            )

        self.validation = {name: stream(name, "validation") for name in self.shares}
        self._sources = {name: stream(name, "train") for name in self.shares}
        self._blend = BlendStream(self._sources, self.shares, config.seed)
        self.train: BatchSource = self._blend if blend else next(iter(self._sources.values()))

    def seen(self, samples: int) -> dict[str, dict[str, Any]]:
        """How much of every source a run of so many samples sees, by name."""
        counts = dict(zip(self._sources, self._blend.counts(samples), strict=True))
        return {
            name: {
                "weight": self.shares[name],
                "samples": counts[name],
                "samples_per_epoch": len(stream),
                "epochs": counts[name] / len(stream),
            }
            for name, stream in self._sources.items()
        }
