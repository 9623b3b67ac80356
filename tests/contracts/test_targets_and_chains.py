"""Every target settles, and every chain plans from nothing: its stages' parents are made before they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.config import digest, dump, load, parse, read_yaml, resolve
from kit.target import Target
from launch.chain_plan import ChainConfig, plan_chain
from launch.recipe_files import find_recipe
from launch.stages import config_model, stage_called

from .conftest import files_in

each_chain = pytest.mark.parametrize("chain", files_in("launch/chains"))


@pytest.mark.parametrize("target", files_in("launch/targets"))
@pytest.mark.parametrize(("processes", "accelerators"), [(1, 0), (2, 0), (8, 8)])
def test_a_target_settles_and_comes_back_from_its_dump(
    target: Path, processes: int, accelerators: int, tmp_path: Path
) -> None:
    settled = load(Target, target).settle(processes, accelerators)
    assert "auto" not in settled.model_dump().values()
    (tmp_path / "target.yaml").write_text(dump(settled), encoding="utf-8")
    assert load(Target, tmp_path / "target.yaml") == settled
    assert settled.settle(processes, accelerators) == settled


@each_chain
def test_a_chain_comes_back_from_its_dump_and_is_named_after_its_file(chain: Path, tmp_path: Path) -> None:
    config = load(ChainConfig, chain)
    assert config.name == chain.stem
    (tmp_path / "chain.yaml").write_text(dump(config), encoding="utf-8")
    again = parse(ChainConfig, read_yaml(tmp_path / "chain.yaml"), "chain.yaml")
    assert digest(again) == digest(config)


@each_chain
def test_the_parents_of_a_chains_stages_come_before_them_and_are_of_the_right_stage(chain: Path) -> None:
    made: dict[str, str] = {}
    for stage in load(ChainConfig, chain).stages:
        recipe = find_recipe(stage.recipe)
        data = resolve(recipe)
        model = config_model(stage_called(data["stage"], str(recipe)))
        wanted = parse(model, data, str(recipe)).parents  # type: ignore[attr-defined]
        assert stage.parents.keys() == wanted.keys(), f"{stage.id}: every parent is named in the chain"
        for name, parent in stage.parents.items():
            assert parent in made, f"{stage.id}: parent {parent} comes later, or never"
            assert f"last:{made[parent]}" == wanted[name]
        assert stage.id not in made
        made[stage.id] = data["stage"]


@each_chain
def test_a_chain_plans_where_nothing_has_run_yet(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, planned = plan_chain(chain, tmp_path / "runs", "laptop", [])
    assert name == chain.stem
    assert len({stage.id for stage in planned}) == len(planned) >= 1
    assert len({stage.key for stage in planned}) == len(planned), "two stages would do the same run"
    assert not any(stage.runs for stage in planned)
    assert list(tmp_path.iterdir()) == [], "planning touches nothing"
