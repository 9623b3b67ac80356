"""The Makefile explains itself, and the house rules in pyproject.toml name every room."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOMS, ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-zA-Z][\w.-]*):(?!=)", MAKEFILE, re.M)
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORTS = PYPROJECT["tool"]["importlinter"]
CONTRACTS = {contract["name"]: contract for contract in IMPORTS["contracts"]}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_phony_and_says_what_it_does(target: str) -> None:
    phony = " ".join(re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.M)).split()
    assert target in phony
    assert re.search(rf"^{re.escape(target)}:.*## \S", MAKEFILE, re.M), f"{target} has no `## help`"


def test_folders_named_like_a_target_to_be_are_phony_too() -> None:
    phony = " ".join(re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.M)).split()
    assert set(ROOMS) <= set(phony)


def test_make_alone_prints_the_help() -> None:
    assert re.search(r"^\.DEFAULT_GOAL := help$", MAKEFILE, re.M)
    for target in ("setup", "demo", "test", "check", "clean"):
        assert target in TARGETS


def test_every_room_is_packaged_typed_and_linted() -> None:
    packaged = [pattern.rstrip("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert sorted(packaged) == ROOMS
    assert sorted(PYPROJECT["tool"]["mypy"]["packages"]) == ROOMS
    assert sorted(IMPORTS["root_packages"]) == ROOMS


def test_every_room_is_under_the_contracts_of_imports() -> None:
    rooms = set(ROOMS)
    ground = CONTRACTS["The ground floor imports no room"]
    assert set(ground["source_modules"]) == {"kit"}
    assert set(ground["forbidden_modules"]) == rooms - {"kit"}
    assert set(CONTRACTS["Rooms are independent siblings"]["modules"]) == rooms - {"kit", "launch"}
    assert set(CONTRACTS["Rooms do not know the launcher"]["source_modules"]) == rooms - {"kit", "launch"}
    torch_free = CONTRACTS["Only recipes reach torch"]
    assert set(torch_free["source_modules"]) == rooms - {"recipes"}
    assert {"torch", "transformers", "megatron"} <= set(torch_free["forbidden_modules"])


def test_every_module_that_a_contract_of_imports_names_is_there() -> None:
    for contract in IMPORTS["contracts"]:
        for module in contract.get("modules", []) + contract.get("source_modules", []):
            assert find_spec(module) is not None, f"{contract['name']}: no module {module}"


def test_the_command_is_where_the_project_says() -> None:
    module, function = PYPROJECT["project"]["scripts"]["slipway"].split(":")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert re.search(rf"^def {function}\(", Path(spec.origin).read_text(encoding="utf-8"), re.M)
