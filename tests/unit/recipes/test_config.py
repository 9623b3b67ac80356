from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kit.config import load, parse
from kit.errors import UserError
from recipes.pretrain.config import PretrainConfig
from recipes.stages import STAGES, load_object

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def minimal() -> dict[str, object]:
    return {
        "name": "x",
        "model": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64},
        "data": {"sequence_length": 16, "global_batch_samples": 8, "micro_batch_samples": 2},
        "optimizer": {"learning_rate": 1e-3},
        "budget": {"steps": 5},
    }


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_recipe_of_the_room_loads(path: Path) -> None:
    config = load(load_object(STAGES[path.parent.name].config), path)
    assert config.stage == path.parent.name
    assert config.name == path.stem


def test_a_global_batch_that_does_not_divide_names_both_keys() -> None:
    with pytest.raises(UserError, match=r"(?s)global_batch_samples 8 .*layout.data 3") as caught:
        parse(PretrainConfig, minimal() | {"layout": {"data": 3}}, "recipe.yaml")
    assert caught.value.exit_code == 2


def test_an_unknown_key_has_a_suggestion() -> None:
    data = minimal() | {"optimizer": {"learning_rat": 1e-3}}
    with pytest.raises(UserError, match="did you mean `learning_rate`"):
        parse(PretrainConfig, data, "recipe.yaml")


def test_heads_must_divide() -> None:
    data = minimal() | {"model": {"layers": 2, "hidden": 32, "heads": 3, "kv_heads": 1, "ffn": 64}}
    with pytest.raises(UserError, match="heads 3"):
        parse(PretrainConfig, data, "recipe.yaml")


def test_a_stated_vocabulary_wins_over_the_tokenizers() -> None:
    model = parse(PretrainConfig, minimal(), "x").model
    assert model.with_vocab(100).vocab_size == 100
    assert model.model_copy(update={"vocab": 128}).with_vocab(100).vocab_size == 128


def test_tensor_shapes_add_up_to_the_parameter_count() -> None:
    from math import prod

    from kit.flops import parameter_count

    for tied in (False, True):
        model = parse(PretrainConfig, minimal(), "x").model.model_copy(update={"tied": tied}).with_vocab(100)
        assert sum(prod(shape) for shape in model.tensor_shapes().values()) == parameter_count(model.shape(16))


def test_configurations_need_no_torch() -> None:
    code = (
        "import sys, recipes.pretrain.config, recipes.evaluate.config, recipes.stages;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=RECIPES.parent)
