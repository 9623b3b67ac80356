"""Which layouts and batches a model, a stage and an engine allow, and which allowed ones are nearest to a refused one.

Torch-free and pure. Distance is counted in doublings: tensor 4 is two away from tensor 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kit.errors import UserError
from kit.layout import Layout
from recipes.engines.abilities import ABILITIES, check_abilities, wanted_of

SIZES = ("layers", "heads", "kv_heads", "hidden", "ffn")
VALIDATE_BY_SAMPLES = ("pretrain", "zero")
NAMED = 3
"""How many layouts an error names."""


def check_layout(
    layout: Layout,
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    vocab: int | None = None,
    device: str | None = None,
) -> None:
    """Checks that an engine can do what a recipe asks, and cut a model this way.

    Args:
        layout: What is asked for.
        config: The recipe as plain data: engine, data, model, precision, recompute.
        sizes: Of the model, by the names of SIZES.
        vocab: Of the model, where it is known.
        device: "cpu" or "cuda", where it is known.

    Raises:
        UserError: Naming the whole layouts nearest to it with as many processes.
    """
    # No other layout mends what an engine can't do at all.
    check_abilities(wanted_of(config, Layout()), device)
    try:
        _check(layout, config, sizes, vocab)
    except UserError as error:
        near = nearest_layouts(layout, config, sizes, vocab)
        words = " or ".join(written(found) for found in near)
        ranks = f"{layout.world_size} processes" if layout.world_size > 1 else "1 process"
        action = f"{error.action}; with {ranks}: {words}" if near else error.action
        raise UserError(error.found, expected=error.expected, action=action) from None


def nearest_layouts(
    layout: Layout, config: Mapping[str, Any], sizes: Mapping[str, int], vocab: int | None = None, most: int = NAMED
) -> list[Layout]:
    """The legal layouts of as many processes, the nearest first."""
    legal = [other for other in _alternatives(layout) if _is_legal(other, config, sizes, vocab)]
    return sorted(legal, key=lambda other: (distance(layout, other), written(other)))[:most]


def distance(one: Layout, other: Layout) -> float:
    """Doublings between two layouts; a change of interleaving or sequence parallelism is a small step more."""
    axes = sum(abs(math.log2(one.degree(axis) / other.degree(axis))) for axis in ("data", "tensor", "pipeline"))
    axes += abs(math.log2(one.context / other.context))
    chunks = abs(math.log2(one.interleave / other.interleave))
    return axes + 0.5 * chunks + (0.25 if one.sequence != other.sequence else 0.0)


def written(layout: Layout) -> str:
    """A layout as a recipe writes it."""
    usual = Layout().model_dump()
    words = [f"{key}: {str(value).lower()}" for key, value in layout.model_dump().items() if value != usual[key]]
    return f"layout {{{', '.join(words) or 'data: 1'}}}"


def _alternatives(layout: Layout) -> Iterator[Layout]:
    """Every way to use as many processes; interleaving and sequence parallelism as asked for, or without."""
    world = layout.world_size
    degrees = [degree for degree in range(1, world + 1) if world % degree == 0]
    for tensor, pipeline, context in itertools.product(degrees, repeat=3):
        cut = tensor * pipeline * context
        if world % cut:
            continue
        for chunks, sequence in itertools.product({1, 2, layout.interleave}, {False, layout.sequence}):
            if chunks <= layout.interleave:
                yield Layout(
                    data=world // cut,
                    tensor=tensor,
                    pipeline=pipeline,
                    context=context,
                    interleave=chunks,
                    sequence=sequence,
                )


def _is_legal(layout: Layout, config: Mapping[str, Any], sizes: Mapping[str, int], vocab: int | None) -> bool:
    try:
        _check(layout, config, sizes, vocab)
    except UserError:
        return False
    data = config.get("data") or {}
    portion = layout.data * int(data.get("micro_batch_samples") or 1)
    return int(data.get("global_batch_samples") or portion) % portion == 0


def _check(layout: Layout, config: Mapping[str, Any], sizes: Mapping[str, int], vocab: int | None) -> None:
    engine = str(config.get("engine") or "accelerate")
    data = config.get("data") or {}
    if "sequence_length" in data:
        layout.check_model(**{key: sizes[key] for key in SIZES}, sequence_length=int(data["sequence_length"]))
    if not _cuts(engine):
        _check_data_alone(engine, layout)
    check_abilities(wanted_of(config, layout))
    _check_validation(layout, config)
    if not _cuts(engine):
        return
    if vocab is not None:
        layout.check_vocabulary(vocab)
    if "global_batch_samples" in data:
        layout.check_micro_batches(int(data["global_batch_samples"]), int(data.get("micro_batch_samples") or 1))


def _cuts(engine: str) -> bool:
    return engine in ABILITIES and ABILITIES[engine].cuts_models


def _check_data_alone(engine: str, layout: Layout) -> None:
    if layout.world_size != layout.data:
        raise UserError(
            f"engine {engine} with {written(layout)}",
            expected="a layout of the data axis alone: this engine cuts the batch, not the model",
            action="set the other degrees to 1, or use engine megatron where the stage has it",
        )
    if layout.interleave > 1 or layout.sequence:
        raise UserError(
            f"engine {engine} with {written(layout)}",
            expected="neither interleaving nor sequence parallelism",
            action="leave layout.interleave and layout.sequence out",
        )


def _check_validation(layout: Layout, config: Mapping[str, Any]) -> None:
    """Every data rank validates as many samples; interleaved stages take them in rounds."""
    validation = config.get("validation")
    if config.get("stage") not in VALIDATE_BY_SAMPLES or not isinstance(validation, Mapping):
        return
    unit = layout.data * (layout.pipeline if layout.interleave > 1 else 1)
    if int(validation.get("samples") or unit) < unit:
        raise UserError(
            f"validation.samples is {validation['samples']}, and {written(layout)} takes {unit} at once",
            expected="at least one sample for every data rank, with layout.interleave times layout.pipeline",
            action=f"set validation.samples={unit}",
        )
