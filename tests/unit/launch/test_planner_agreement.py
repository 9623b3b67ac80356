"""What the planner allows the engine allows, and what it refuses the engine refuses: every layout of up to 8 ranks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from kit.config import parse, to_data
from kit.errors import UserError
from kit.layout import Layout
from launch.planner.legality import SIZES, check_layout
from recipes.engines.abilities import ABILITIES, Wanted, check_abilities, wanted_of
from recipes.engines.megatron import build
from recipes.pretrain.config import PretrainConfig

LLAMA = {"layers": 8, "hidden": 48, "heads": 12, "kv_heads": 4, "ffn": 128, "vocab": 516}
GPT2 = {"family": "gpt2", "layers": 6, "hidden": 48, "heads": 6, "vocab": 512}
RECIPE: dict[str, Any] = {
    "name": "grid",
    "model": LLAMA,
    "data": {"sequence_length": 48, "global_batch_samples": 24, "micro_batch_samples": 1},
    "optimizer": {"learning_rate": 1e-3},
    "budget": {"steps": 1},
}


def layouts(most: int) -> Iterator[Layout]:
    """Every layout of up to so many ranks, with one to three chunks a stage, with and without sequence parallelism."""
    degrees = range(1, most + 1)
    for data, tensor, pipeline, context in itertools.product(degrees, repeat=4):
        if data * tensor * pipeline * context <= most:
            for chunks, sequence in itertools.product((1, 2, 3), (False, True)):
                axes = {"data": data, "tensor": tensor, "pipeline": pipeline, "context": context}
                yield Layout(**axes, interleave=chunks, sequence=sequence)


def refused(check: Any) -> bool:
    try:
        check()
    except UserError:
        return True
    return False


@pytest.mark.parametrize("model", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("micro", [1, 2])
def test_planner_and_engine_agree_on_every_layout(model: dict[str, Any], micro: int) -> None:
    verdicts = []
    for layout in layouts(8):
        data = {**RECIPE["data"], "micro_batch_samples": micro}
        if data["global_batch_samples"] % (layout.data * micro):
            continue  # the recipe itself is refused then, wherever it is read
        config = parse(PretrainConfig, {**RECIPE, "model": model, "data": data, "layout": to_data(layout)}, "grid")
        shape = config.model
        sizes = {key: int(getattr(shape, key)) for key in SIZES}

        def engine(config: PretrainConfig = config, sizes: dict[str, int] = sizes) -> None:
            config.layout.check_model(**sizes, sequence_length=config.data.sequence_length)
            build.check(config, config.model)
            check_abilities(wanted_of(to_data(config), config.layout), "cpu")

        planner = refused(lambda: check_layout(layout, to_data(config), sizes, shape.vocab, "cpu"))  # noqa: B023
        assert planner == refused(engine), layout
        verdicts.append(planner)
    assert 40 < verdicts.count(False) < len(verdicts) - 40, "both verdicts are frequent"


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (
            {"engine": "accelerate", "recompute": "full"},
            ["recompute full", "set recompute=none, or set engine=megatron"],
        ),
        ({"engine": "accelerate", "model": GPT2}, ["model.family gpt2", "set engine=megatron"]),
        ({"engine": "accelerate", "model": {**LLAMA, "dropout": 0.1}}, ["model.dropout 0.1", "engine=megatron"]),
        ({"engine": "accelerate", "data": {**RECIPE["data"], "reset_attention": True}}, ["data.reset_attention"]),
        ({"engine": "reference", "layout": {"data": 2}}, ["job of 2 processes", "engine=megatron"]),
        ({"engine": "reference", "precision": "bf16"}, ["precision bf16", "set precision=fp32"]),
        ({"precision": "fp16"}, ["precision fp16 on a CPU", "device: cuda"]),
        ({"precision": "fp8"}, ["precision fp8 on a CPU"]),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_what_can(sets: dict[str, Any], words: list[str]) -> None:
    config = {"engine": "megatron", **RECIPE, **sets}
    layout = parse(Layout, config.get("layout") or {}, "test")
    with pytest.raises(UserError) as caught:
        check_abilities(wanted_of(config, layout), "cpu")
    for word in words:
        assert word in str(caught.value)


def test_fp8_wants_sizes_that_its_kernels_multiply() -> None:
    config = {**RECIPE, "engine": "megatron", "precision": "fp8"}
    sizes = dict(wanted_of(config, Layout(tensor=2, sequence=True)).fp8_sizes)
    assert sizes == {
        "model.hidden": 48,
        "what model.heads make of model.hidden": 24,
        "what model.kv_heads make of it": 8,
        "model.ffn": 64,
        "a micro-batch in tokens": 24,
    }
    with pytest.raises(UserError, match="is 24 on one rank"):
        check_abilities(wanted_of(config, Layout(tensor=2)), "cuda")
    check_abilities(Wanted("megatron", precision="fp8"), "cuda")


def test_every_engine_of_the_table_is_known() -> None:
    from recipes.engines.table import ENGINES

    assert ABILITIES.keys() == ENGINES.keys()
