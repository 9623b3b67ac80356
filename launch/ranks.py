"""`--ranks N`: a recipe's layout for so many ranks, where it lists several."""

from __future__ import annotations

from collections.abc import Sequence

from kit.config import parse, resolve
from kit.errors import UserError
from kit.layout import Layout
from launch.recipe_files import find_recipe


def layouts_of(recipe: str) -> dict[int, Layout]:
    """The layouts that a recipe lists under `layouts`, by their number of ranks.

    Raises:
        UserError: There is no such recipe, or an entry is no layout.
    """
    path = find_recipe(recipe)
    listed = resolve(path).get("layouts") or {}
    return {int(ranks): parse(Layout, entry or {}, f"{path}, layouts.{ranks}") for ranks, entry in listed.items()}


def sets_with_ranks(recipe: str, ranks: int | None, sets: Sequence[str]) -> list[str]:
    """The assignments that give a recipe its layout for so many ranks, then `sets`, which go further.

    Every key of the layout is written, so that nothing is left of the recipe's own.

    Raises:
        UserError: The recipe lists no layout for so many; names the nearest numbers that it has.
    """
    if ranks is None:
        return list(sets)
    layouts = layouts_of(recipe)
    if ranks not in layouts:
        raise UserError(
            f"--ranks {ranks}: {recipe} has no layout for {ranks} ranks",
            expected=f"one of: {', '.join(map(str, sorted(layouts)))}" if layouts else "a recipe with `layouts`",
            action=_advice(ranks, sorted(layouts)),
        )
    chosen = layouts[ranks].model_dump()
    return [*(f"layout.{key}={str(value).lower()}" for key, value in chosen.items()), *sets]


def _advice(ranks: int, known: Sequence[int]) -> str:
    if not known:
        return f"leave --ranks out, and set the layout itself: --set layout.data={ranks}"
    below, above = [other for other in known if other < ranks], [other for other in known if other > ranks]
    near = " or ".join(f"--ranks {other}" for other in [*below[-1:], *above[:1]])
    return f"use {near}, or add it under `layouts`"
