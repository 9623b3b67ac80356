"""Every recipe that comes with the kit loads, comes back from its dump, fits its layout, and plans."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kit.config import Config, digest, dump, parse, read_yaml, resolve
from kit.layout import Layout
from launch.plan import make_plan
from launch.recipe_files import find_recipe, recipe_names
from launch.stages import STAGES, config_model, stage_called
from recipes.stages import STAGES as RECIPE_STAGES

from .conftest import ROOT, recipe_files

RECIPES = recipe_files()
each_recipe = pytest.mark.parametrize("recipe", RECIPES)


def load_recipe(path: Path) -> Config:
    data = resolve(path)
    return parse(config_model(stage_called(data.get("stage"), str(path))), data, str(path))


def test_every_stage_has_a_recipe() -> None:
    assert {resolve(path)["stage"] for path in RECIPES} == set(STAGES)


def test_every_recipe_has_a_short_name_that_finds_it() -> None:
    assert sorted(recipe_names().values()) == sorted(RECIPES)
    for name, path in recipe_names().items():
        assert find_recipe(name) == path


@each_recipe
def test_a_recipe_comes_back_from_its_dump(recipe: Path, tmp_path: Path) -> None:
    config = load_recipe(recipe)
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    again = parse(type(config), read_yaml(tmp_path / "config.yaml"), "config.yaml")
    assert again == config
    assert digest(again) == digest(config)


@each_recipe
def test_a_recipe_lies_with_its_stage_and_is_named(recipe: Path) -> None:
    data = resolve(recipe)
    assert data["name"]
    assert data["stage"] in recipe.relative_to(ROOT).parts


@each_recipe
def test_a_recipe_has_a_layout_that_cuts_its_model(recipe: Path) -> None:
    config = load_recipe(recipe)
    layout, model = getattr(config, "layout", Layout()), getattr(config, "model", None)
    if not hasattr(model, "layers"):
        assert layout.world_size >= 1
        return
    sizes = {name: getattr(model, name) for name in ("layers", "heads", "kv_heads", "hidden", "ffn")}
    layout.check_model(**sizes, sequence_length=config.data.sequence_length)  # type: ignore[attr-defined]


@each_recipe
def test_the_parents_of_a_recipe_are_stages_that_a_recipe_makes(recipe: Path) -> None:
    for reference in resolve(recipe).get("parents", getattr(load_recipe(recipe), "parents", {})).values():
        last, _, stage = reference.partition(":")
        assert last == "last", f"{recipe.name} hangs on one run of one machine: {reference}"
        assert stage in STAGES


@each_recipe
def test_a_recipe_plans_on_a_large_enough_laptop(recipe: Path) -> None:
    plan = make_plan(str(recipe), "laptop", target_sets=["devices_per_host=1024"])
    assert plan.stage == resolve(recipe)["stage"]
    assert "auto" not in plan.target.model_dump().values()


@pytest.mark.parametrize("stage", sorted(RECIPE_STAGES))
def test_the_function_that_runs_a_stage_is_where_the_table_says(stage: str) -> None:
    module, function = RECIPE_STAGES[stage].run.split(":")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert found, f"{module} has no function {function}"
    assert [argument.arg for argument in found[0].args.args] == ["config", "run"]


def test_a_laptop_without_torch_can_plan_everything() -> None:
    program = (
        "import sys\n"
        "hidden = ('torch', 'transformers', 'megatron', 'deepspeed', 'accelerate', 'peft', 'trl', 'datatrove')\n"
        "for name in hidden: sys.modules[name] = None\n"
        "from launch.cli import build_parser\n"
        "from launch.plan import make_plan\n"
        "build_parser()\n"
        "for recipe in sys.argv[1:]: make_plan(recipe, 'laptop', target_sets=['devices_per_host=1024'])\n"
    )
    command = [sys.executable, "-c", program, *map(str, RECIPES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
