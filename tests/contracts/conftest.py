"""What the kit ships, found by looking: nothing here is a list kept by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.config import read_yaml

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def recipe_files() -> list[Path]:
    """Every recipe of the stage rooms: a YAML file with a `stage`, or one that extends such a file; no data file."""
    files = [path for room in ("recipes", "data_prep") for path in sorted((ROOT / room).rglob("*.yaml"))]
    return [path for path in files if {"stage", "extends"} & read_yaml(path).keys()]


def files_in(folder: str) -> list[Path]:
    """Every YAML file of a folder; an empty folder would make its tests pass in silence."""
    found = sorted((ROOT / folder).glob("*.yaml"))
    assert found, f"no YAML file in {folder}"
    return found


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    return str(val.relative_to(ROOT)) if isinstance(val, Path) else None
