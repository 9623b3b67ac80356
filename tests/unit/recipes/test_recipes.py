"""The recipes of stated sizes: every one at every number of ranks that it lists is legal, loads and fits its GPUs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kit.config import parse, resolve
from kit.errors import UserError
from kit.flops import non_embedding_parameters, parameter_count
from kit.layout import Layout
from launch.cli import main
from launch.plan import Plan, make_plan
from launch.planner.memory import predict_memory
from launch.planner.prediction import GIB, workload_of
from launch.planner.workload import Workload
from launch.ranks import layouts_of, sets_with_ranks
from launch.recipe_files import find_recipe
from recipes.engines.megatron import build
from recipes.pretrain.config import PretrainConfig

SIZES = {"10m": 10e6, "124m": 124e6, "350m": 350e6, "1.3b": 1.3e9, "7b": 7e9, "13b": 13e9, "70b": 70e9, "175b": 175e9}
LARGEST = {"10m": 8, "124m": 32, "350m": 128, "1.3b": 256, "7b": 1024, "13b": 1024, "70b": 1024, "175b": 1024}
GPU_GIB = 80 * 1e9 / 1024**3
HOST = 8
VOCAB = 32000
ENOUGH = ["devices_per_host=1024"]
LISTED = [(name, ranks) for name in SIZES for ranks in layouts_of(f"pretrain/{name}")]

each_size = pytest.mark.parametrize("name", SIZES)
each_listed = pytest.mark.parametrize(("name", "ranks"), LISTED)


def planned(name: str, ranks: int | None = None, *sets: str) -> Plan:
    """The plan for a number of ranks, with a tokenizer of 32,000."""
    recipe = f"pretrain/{name}"
    return make_plan(recipe, sets=sets_with_ranks(recipe, ranks, [f"model.vocab={VOCAB}", *sets]), target_sets=ENOUGH)


def workload(plan: Plan, device: str = "cuda") -> Workload:
    return replace(workload_of(plan, {})[0], device=device)


@each_size
def test_a_recipe_has_as_many_parameters_as_its_name_says(name: str) -> None:
    assert non_embedding_parameters(workload(planned(name)).shape) == pytest.approx(SIZES[name], rel=0.1)


@each_size
def test_a_recipe_lists_powers_of_two_up_to_what_the_size_is_for(name: str) -> None:
    listed = [ranks for other, ranks in LISTED if other == name]
    assert listed == [2**power for power in range(listed[0].bit_length() - 1, LARGEST[name].bit_length())]
    own = planned(name)
    assert own.layout == layouts_of(f"pretrain/{name}")[own.processes], "the recipe's own layout is one of the listed"


@each_listed
def test_every_listed_layout_plans_loads_and_fits_80_gigabytes(name: str, ranks: int) -> None:
    plan = planned(name, ranks)
    assert plan.processes == ranks
    config = parse(PretrainConfig, plan.config, name)
    assert config.layout == layouts_of(f"pretrain/{name}")[ranks]
    build.check(config, config.model.with_vocab(VOCAB, config.data.sequence_length))
    memory = predict_memory(workload(plan))
    assert memory is not None
    # A fifth is left for what the formulas don't know: fragments, work space of kernels and of NCCL.
    assert memory.total / GIB < 0.8 * GPU_GIB, memory


@each_listed
def test_every_listed_layout_keeps_tensor_parallelism_inside_a_host(name: str, ranks: int) -> None:
    layout = layouts_of(f"pretrain/{name}")[ranks]
    assert layout.tensor <= HOST
    assert layout.sequence == (layout.tensor > 1)
    assert layout.context == 1, "sequences are short"


@each_size
def test_the_budget_is_twenty_tokens_a_parameter_and_the_warm_up_fits_into_it(name: str) -> None:
    load = workload(planned(name))
    wanted = 20 * parameter_count(load.shape)
    assert 0 <= load.steps * load.tokens_per_step - wanted < load.tokens_per_step
    warmup = resolve(find_recipe(f"pretrain/{name}"))["schedule"]["warmup_steps"]
    assert 100 <= warmup < load.steps / 10


def test_the_command_takes_a_number_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "pretrain/10m", "--ranks", "2", "--runs", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["processes"] == plan["layout"]["data"] == 2
    assert plan["config"]["budget"] == {"tokens": "chinchilla"}
    assert plan["predicted"]["tokens"] == pytest.approx(20 * plan["model"]["parameters"], rel=1e-3)


def test_what_is_set_goes_further_than_ranks() -> None:
    plan = planned("7b", 64, "layout.context=8", "layout.data=4", "data.sequence_length=32768")
    assert plan.layout == Layout(data=4, tensor=2, context=8, sequence=True)
    assert plan.config["data"]["sequence_length"] == 32768


@pytest.mark.parametrize(
    ("recipe", "ranks", "words"),
    [
        ("pretrain/70b", 48, "use --ranks 32 or --ranks 64"),
        ("pretrain/70b", 8, "use --ranks 32, or add it under `layouts`"),
        ("pretrain/demo", 4, "--set layout.data=4"),
    ],
)
def test_a_number_of_ranks_that_is_not_listed_is_told_the_nearest(recipe: str, ranks: int, words: str) -> None:
    with pytest.raises(UserError) as caught:
        sets_with_ranks(recipe, ranks, [])
    assert words in caught.value.action


def test_a_layout_that_is_not_of_its_number_of_ranks_is_refused() -> None:
    with pytest.raises(UserError, match=r"layouts\.8 is tensor 2 x data 2, which is 4 ranks"):
        make_plan("pretrain/350m", sets=["layouts={8: {data: 2, tensor: 2}}"], target_sets=ENOUGH)
