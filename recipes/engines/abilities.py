"""What each engine can do: the one table that the planner asks before a run is made and the engines when they start.

Torch-free and pure. What a layout may be is arithmetic and stands in kit.layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.errors import UserError
from kit.layout import Layout

HALF = ("fp32", "bf16")
ON_CUDA_ALONE = ("fp16", "fp8")
"""A processor has no units for them; loss scaling and Transformer Engine's kernels are for CUDA."""

FP8_MULTIPLE = 16
"""Transformer Engine multiplies in fp8 where both sides of a matrix are multiples of this."""


@dataclass(frozen=True)
class Abilities:
    """What an engine can do besides plain training of a Llama on the data axis."""

    cuts_models: bool = False
    one_process: bool = False
    families: tuple[str, ...] = ("llama",)
    precisions: tuple[str, ...] = HALF
    recompute: bool = False
    dropout: bool = False
    reset_attention: bool = False


ABILITIES: dict[str, Abilities] = {
    "megatron": Abilities(
        cuts_models=True,
        families=("llama", "gpt2"),
        precisions=(*HALF, *ON_CUDA_ALONE),
        recompute=True,
        dropout=True,
        reset_attention=True,
    ),
    "reference": Abilities(
        one_process=True, families=("llama", "gpt2"), precisions=("fp32",), dropout=True, reset_attention=True
    ),
    "deepspeed": Abilities(families=("llama", "gpt2")),
    "accelerate": Abilities(),
}


@dataclass(frozen=True)
class Wanted:
    """What a recipe asks of its engine.

    Attributes:
        ranks: Processes of the job.
        family: Of a model that the recipe describes; empty where it comes from elsewhere.
        fp8_sizes: What fp8 multiplies: what it is -> its size on one rank.
    """

    engine: str
    ranks: int = 1
    precision: str = "fp32"
    family: str = ""
    recompute: str = "none"
    dropout: float = 0.0
    reset_attention: bool = False
    fp8_sizes: tuple[tuple[str, int], ...] = ()


def wanted_of(config: Mapping[str, Any], layout: Layout) -> Wanted:
    """What a recipe, as plain data, asks of its engine."""
    model = config.get("model")
    model = model if isinstance(model, Mapping) and "layers" in model else {}
    data = config.get("data")
    data = data if isinstance(data, Mapping) else {}
    return Wanted(
        engine=str(config.get("engine") or "accelerate"),
        ranks=layout.world_size,
        precision=str(config.get("precision") or "fp32"),
        family=str(model.get("family") or ""),
        recompute=str(config.get("recompute") or "none"),
        dropout=float(model.get("dropout") or 0.0),
        reset_attention=bool(data.get("reset_attention")),
        fp8_sizes=_fp8_sizes(model, data, layout) if config.get("precision") == "fp8" else (),
    )


def _fp8_sizes(model: Mapping[str, Any], data: Mapping[str, Any], layout: Layout) -> tuple[tuple[str, int], ...]:
    if not model or "sequence_length" not in data:
        return ()
    tokens = int(data["sequence_length"]) * int(data.get("micro_batch_samples") or 1) // layout.context
    keys = int(model["hidden"]) // int(model["heads"]) * int(model["kv_heads"])
    return (
        ("model.hidden", int(model["hidden"])),
        ("what model.heads make of model.hidden", int(model["hidden"]) // layout.tensor),
        ("what model.kv_heads make of it", keys // layout.tensor),
        ("model.ffn", int(model["ffn"]) // layout.tensor),
        ("a micro-batch in tokens", tokens // (layout.tensor if layout.sequence else 1)),
    )


def check_abilities(wanted: Wanted, device: str | None = None) -> None:
    """Checks that an engine can do what a recipe asks.

    Args:
        wanted: The recipe's wishes.
        device: "cpu" or "cuda"; None: not known yet.

    Raises:
        UserError: Naming the engines that can.
    """
    able = ABILITIES.get(wanted.engine, Abilities())
    if able.one_process and wanted.ranks > 1:
        raise _refusal(
            wanted,
            f"in a job of {wanted.ranks} processes",
            "one process: it is the plain engine that the others are compared with",
            "set engine=megatron, or every degree of layout to 1",
        )
    if wanted.precision not in able.precisions:
        raise _refusal(
            wanted,
            f"with precision {wanted.precision}",
            f"precision {' or '.join(able.precisions)}",
            f"set precision={able.precisions[-1]}, or {_able('precision', wanted)}",
        )
    if wanted.family and wanted.family not in able.families:
        families = f"model.family {' or '.join(able.families)}"
        raise _refusal(wanted, f"with model.family {wanted.family}", families, _able("family", wanted))
    if wanted.recompute != "none" and not able.recompute:
        action = f"set recompute=none, or {_able('', wanted)}"
        raise _refusal(wanted, f"with recompute {wanted.recompute}", "none: it keeps every activation", action)
    if wanted.dropout and not able.dropout:
        # Masks that a stop and a resume would change: the run after it would not be the run without it.
        action = f"set model.dropout=0, or {_able('', wanted)}"
        raise _refusal(
            wanted, f"with model.dropout {wanted.dropout:g}", "0: its masks would change by a resume", action
        )
    if wanted.reset_attention and not able.reset_attention:
        action = f"set data.reset_attention=false, or {_able('', wanted)}"
        raise _refusal(wanted, "with data.reset_attention", "whole samples: it takes no mask of documents", action)
    _check_device(wanted, device)


def _check_device(wanted: Wanted, device: str | None) -> None:
    if device == "cpu" and wanted.precision in ON_CUDA_ALONE:
        raise UserError(
            f"precision {wanted.precision} on a CPU",
            expected="fp32 or bf16 there; fp16 and fp8 are for CUDA",
            action="set precision=fp32, or choose a target with device: cuda",
        )
    odd = [(name, size) for name, size in wanted.fp8_sizes if size % FP8_MULTIPLE]
    if wanted.precision == "fp8" and odd:
        name, size = odd[0]
        raise UserError(
            f"precision fp8, and {name} is {size} on one rank",
            expected=f"a multiple of {FP8_MULTIPLE}: Transformer Engine's fp8 kernels want it",
            action="change it or the layout, or set precision=bf16",
        )


def _refusal(wanted: Wanted, words: str, expected: str, action: str) -> UserError:
    return UserError(f"engine {wanted.engine} {words}", expected=expected, action=action)


def _able(key: str, wanted: Wanted) -> str:
    """`set engine=...`, naming the first engine of the table that can do all that is asked; else words."""
    for name, able in ABILITIES.items():
        fits = wanted.precision in able.precisions and (not wanted.family or wanted.family in able.families)
        if fits and not able.one_process and name != wanted.engine:
            return f"set engine={name}, where the stage has it"
    return f"change {key or 'the recipe'}"
