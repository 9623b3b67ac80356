"""How raw numbers are printed in cards, tables and sentences. An absent number prints as "not measured"."""

from collections.abc import Callable

from kit.units import format_bytes, format_count, format_duration, format_flops
from reports.document import NOT_MEASURED, Cell

NO_BREAK_SPACE = "\u00a0"


def whole(value: Cell) -> str:
    """A count in full: 12,345."""
    return _printed(value, lambda found: f"{found:,.0f}")


def fixed(digits: int) -> Callable[[Cell], str]:
    """A printer with that many decimals."""
    return lambda value: _printed(value, lambda found: f"{found:,.{digits}f}")


def percent(value: Cell) -> str:
    """A share, 0 to 1, in percent: one decimal below 10 %, none from there and for nothing at all."""
    return _printed(value, lambda share: f"{100 * share:.{1 if 0 < abs(share) < 0.1 else 0}f}{NO_BREAK_SPACE}%")


def counted(value: Cell) -> str:
    """A count with a suffix: 12.3k."""
    return _printed(value, format_count)


def size(value: Cell) -> str:
    """Bytes with a unit: 1.5 MiB."""
    return _printed(value, format_bytes)


def duration(value: Cell) -> str:
    """Seconds as 3 min 12 s."""
    return _printed(value, format_duration)


def gibibytes(value: Cell) -> str:
    """GiB with two decimals."""
    return _printed(value, lambda found: f"{found:.2f} GiB")


def flops(value: Cell) -> str:
    """A FLOP rate with a unit."""
    return _printed(value, format_flops)


def short_digest(value: Cell) -> str:
    """The first twelve hexadecimal digits of a digest; the whole of it is in the CSV."""
    return str(value).removeprefix("sha256:")[:12]


def probability(value: Cell) -> str:
    """A p-value: 0.012, or < 0.001 below that."""
    return _printed(value, lambda found: "< 0.001" if found < 0.001 else f"{found:.3f}")


def chance(value: Cell) -> str:
    """What a p-value says, in words that end "two equally good models would differ so much ..."."""
    return _printed(value, _chance)


def _chance(found: float) -> str:
    if found < 0.001:
        return "less than once in 1,000 times (p < 0.001)"
    if found < 0.05:
        return f"about once in {1 / found:,.0f} times (p = {found:.3f})"
    return f"in {percent(found)} of cases (p = {found:.2f}), so chance may explain it"


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 step, 3 steps, 2 processes."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def _printed(value: Cell, show: Callable[[float], str]) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return show(float(value))
    return NOT_MEASURED
