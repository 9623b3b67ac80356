from __future__ import annotations

from typing import Any

import pytest

from kit.config import apply_set, dump, parse, to_data
from kit.errors import UserError
from kit.flops import ModelShape, parameter_count
from recipes.pretrain.config import PretrainConfig
from recipes.sft.config import SftConfig
from recipes.training.budget import steps_of, with_steps

SHAPE = ModelShape(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, ffn=16, vocab=32, sequence_length=10)
RECIPE: dict[str, Any] = {
    "name": "x",
    "model": {"layers": 2, "hidden": 8, "heads": 2, "kv_heads": 1, "ffn": 16},
    "data": {"sequence_length": 10, "global_batch_samples": 4},
    "optimizer": {"learning_rate": 1e-3},
}


def recipe(budget: Any, **more: Any) -> PretrainConfig:
    return parse(PretrainConfig, {**RECIPE, "budget": budget, **more}, "recipe.yaml")


def test_steps_are_steps() -> None:
    assert steps_of(recipe({"steps": 7}).budget, 40, SHAPE) == 7


@pytest.mark.parametrize(("tokens", "steps"), [(400, 10), (401, 11), (1, 1), (4e2, 10)])
def test_tokens_are_spent_to_the_last_in_whole_steps(tokens: float, steps: int) -> None:
    assert steps_of(recipe({"tokens": tokens}).budget, 40, SHAPE) == steps


@pytest.mark.parametrize("budget", ["chinchilla", {"tokens": "chinchilla"}])
def test_chinchilla_is_twenty_tokens_a_parameter(budget: Any) -> None:
    # Two layers of 576, five norms of 8, and two embeddings of 32 x 8.
    assert parameter_count(SHAPE) == 2 * 576 + 5 * 8 + 2 * 256
    assert steps_of(recipe(budget).budget, 40, SHAPE) == 1704 * 20 / 40
    assert steps_of(budget, 40, SHAPE) == 1704 * 20 / 40, "a plan has plain data"


@pytest.mark.parametrize("budget", [{}, {"steps": 5, "tokens": 100}, {"tokens": 0}, {"tokens": "gopher"}, "gopher"])
def test_anything_but_one_of_the_two_is_refused(budget: Any) -> None:
    with pytest.raises(UserError, match="budget") as caught:
        recipe(budget)
    assert all(caught.value.parts())


def test_what_was_given_is_written_and_read_back() -> None:
    for budget in ({"steps": 7}, {"tokens": 400}, {"tokens": "chinchilla"}):
        config = recipe(budget)
        assert to_data(config)["budget"] == budget
        assert f"{next(iter(budget.values()))}" in dump(config)
        assert parse(PretrainConfig, to_data(config), "again") == config


def test_on_the_command_line_steps_take_the_place_of_tokens() -> None:
    data = apply_set({**RECIPE, "budget": {"tokens": "chinchilla"}}, "budget.steps=5")
    with pytest.raises(UserError, match=r"budget.tokens=null"):
        parse(PretrainConfig, data, "recipe.yaml")
    assert parse(PretrainConfig, apply_set(data, "budget.tokens=null"), "recipe.yaml").budget.steps == 5
    assert parse(PretrainConfig, apply_set(data, "budget.steps=null"), "recipe.yaml").budget.tokens == "chinchilla"


@pytest.mark.parametrize("budget", ["chinchilla", {"tokens": 400}, {"steps": 7}])
def test_one_assignment_makes_steps_of_every_budget(budget: Any) -> None:
    data = apply_set({**RECIPE, "budget": budget}, "budget={steps: 5, tokens: null}")
    assert to_data(parse(PretrainConfig, data, "recipe.yaml"))["budget"] == {"steps": 5}


def test_a_recipe_in_steps() -> None:
    config = with_steps(recipe({"tokens": 400}, schedule={"warmup_ratio": 0.2}), SHAPE)
    assert config.budget.steps == 10
    assert config.schedule.warmup(config.budget.steps) == 2


def test_a_warm_up_that_is_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(UserError, match="warmup_steps is 11") as caught:
        with_steps(recipe({"tokens": 400}, schedule={"warmup_steps": 11}), SHAPE)
    assert "warmup_ratio" in caught.value.action


def test_a_stage_whose_batches_differ_in_tokens_counts_steps() -> None:
    with pytest.raises(UserError, match=r"budget\.tokens"):
        parse(SftConfig, {**RECIPE, "budget": {"tokens": 100}}, "recipe.yaml")
