"""The wheel: every room with its data files, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOMS, ROOT


@pytest.fixture(scope="module")
def wheel(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy, because a build leaves its own folders in the source tree."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in files:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = subprocess.run(
        [*command, "--wheel-dir", out, copy],
        capture_output=True,
        text=True,
        cwd=out,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.glob("slipway-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_the_rooms_and_nothing_else(wheel: set[str]) -> None:
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == set(ROOMS)
    assert any(name.endswith("/LICENSE") for name in wheel)


def test_a_wheel_holds_every_file_of_every_room(wheel: set[str], files: list[Path]) -> None:
    carried = {str(path.relative_to(ROOT)) for path in files}
    wanted = {name for name in carried if name.split("/")[0] in ROOMS and not Path(name).name.startswith(".")}
    missing = wanted - wheel
    assert not missing, f"not in the wheel: {sorted(missing)} (see package-data in pyproject.toml)"


def test_recipes_targets_templates_and_the_sample_are_in_the_wheel(wheel: set[str]) -> None:
    assert any(name.startswith("data_prep/") and name.endswith(".warc.gz") for name in wheel)
    assert any(name.startswith("launch/targets/") and name.endswith(".yaml") for name in wheel)
    assert any(name.startswith("recipes/") and name.endswith(".yaml") for name in wheel)
    assert any(name.startswith("reports/") and name.endswith((".html", ".j2")) for name in wheel)
