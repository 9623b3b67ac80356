"""Accelerators to rent, with the dated prices of prices.yaml."""

from __future__ import annotations

import difflib
from datetime import date
from functools import cache
from pathlib import Path

from pydantic import Field
from ruamel.yaml import YAML

from kit.config import Config
from kit.errors import UserError
from kit.hardware import Accelerator, accelerators

TABLE = Path(__file__).with_name("prices.yaml")


class Price(Config):
    """What one accelerator costs for an hour, and who said so when."""

    name: str
    accelerator: str
    memory_gib: float | None = None
    usd_per_hour: float = Field(gt=0)
    offer: str
    source: str
    date: date
    read_by: str

    @property
    def device(self) -> Accelerator:
        """Its data sheet, with the memory of the offer."""
        sheet = next(known for known in accelerators() if known.match == self.accelerator)
        return sheet if self.memory_gib is None else sheet.model_copy(update={"memory_gib": self.memory_gib})


@cache
def prices() -> tuple[Price, ...]:
    """Every row."""
    rows = YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))
    return tuple(Price.model_validate(row) for row in rows)


def price_called(name: str) -> Price:
    """The row with a name.

    Raises:
        UserError: There is none; names the nearest.
    """
    known = {price.name: price for price in prices()}
    if name in known:
        return known[name]
    longer = [other for other in known if other.startswith(name.lower())]
    near = longer or difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    raise UserError(
        f"no accelerator called {name!r} in the table of prices",
        expected=f"one of: {', '.join(known)}",
        action=f"did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else "choose one of them",
    )
