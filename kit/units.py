"""Numbers with units, written for people and read back from them."""

from __future__ import annotations

import re
from decimal import Decimal

from kit.errors import UserError

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SCALE = {
    **{unit.lower(): 1024**power for power, unit in enumerate(_BINARY)},
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))},
}


def format_bytes(count: float) -> str:
    """Formats a number of bytes in binary units, as in `1.5 MiB`."""
    value = float(count)
    for unit in _BINARY[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_BINARY[-1]}"


def parse_bytes(text: str | int) -> int:
    """Reads a number of bytes: `512`, `4 GiB` (binary) or `4 GB` (decimal).

    Raises:
        UserError: If the text is not a number with a known unit.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(text))
    unit = (match.group(2).lower() or "b") if match else ""
    if match is None or unit not in _SCALE:
        raise UserError(
            f"{text!r} as a number of bytes",
            expected="a number and a unit, such as 512, 4 GiB or 250 MB",
            action="write the size with one of the units B, KiB, MiB, GiB, TiB, KB, MB, GB, TB",
        )
    # Decimal, because 2.01 * 1000 is 2009.99... in binary floating point.
    return int(Decimal(match.group(1)) * _SCALE[unit])


def format_count(count: float) -> str:
    """Formats a plain count with a decimal suffix, as in `1.23M`; below 10,000 in full."""
    value = float(count)
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    for suffix in ("k", "M", "B", "T"):
        value /= 1000
        if abs(value) < 999.5:
            return f"{value:.3g}{suffix}"
    return f"{value:.3g}T"


def format_duration(seconds: float) -> str:
    """Formats a duration, as in `3 min 12 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_flops(flops_per_second: float) -> str:
    """Formats a rate of floating-point operations, as in `31.2 GFLOP/s`."""
    value = float(flops_per_second)
    for prefix in ("", "K", "M", "G", "T", "P"):
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}FLOP/s"
        value /= 1000
    return f"{value:.3g} EFLOP/s"
