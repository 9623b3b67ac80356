"""Finding recipes, targets and chains by the short names that people type."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from kit.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = Path(__file__).resolve().parent


def find_recipe(name: str) -> Path:
    """The file of a recipe, given as a path or as a short name such as `pretrain/demo`.

    Raises:
        UserError: there is none; names the nearest.
    """
    return _find(name, recipe_names(), "recipe")


def find_target(name: str) -> Path:
    """The file of a target, given as a path or as a short name such as `laptop`."""
    return _find(name, _stems(LAUNCH / "targets"), "target")


def find_chain(name: str) -> Path:
    """The file of a chain, given as a path or as a short name such as `demo`."""
    return _find(name, _stems(LAUNCH / "chains"), "chain")


def recipe_names() -> dict[str, Path]:
    """Every recipe that comes with the kit: short name -> file."""
    files = [*sorted((ROOT / "data_prep" / "recipes").glob("*.yaml")), *sorted((ROOT / "recipes").glob("*/*.yaml"))]
    # Other YAML files in these folders are tables that the code reads.
    recipes = [
        path for path in files if re.search(r"^(stage|extends):", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return {f"{_stage_folder(path)}/{path.stem}": path for path in recipes}


def _stage_folder(path: Path) -> str:
    return path.parent.parent.name if path.parent.name == "recipes" else path.parent.name


def recipe_that_makes(stage: str, like: str) -> str | None:
    """The short name of a recipe for a missing parent.

    The one called like the child, or like the child's first word (tiny-dpo -> tiny), else `demo`, else the first.
    """
    names = [name for name in recipe_names() if name.startswith(f"{stage}/")]
    for wanted in (f"{stage}/{like}", f"{stage}/{like.partition('-')[0]}", f"{stage}/demo"):
        if wanted in names:
            return wanted
    return names[0] if names else None


def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(name: str, known: dict[str, Path], what: str) -> Path:
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_file():
        return path
    if path.with_name(path.name + ".yaml").is_file():
        return path.with_name(path.name + ".yaml")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise UserError(
        f"no {what} called {name!r}",
        expected=f"a path to a {what} file, or one of: {', '.join(known) or 'none yet'}",
        action=f"did you mean `{near[0]}`?" if near else f"choose one of them, or write the path of your own {what}",
    )
