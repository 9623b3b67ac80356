from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UserError
from kit.units import format_bytes, format_count, format_duration, format_flops, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512", 512),
        (512, 512),
        ("4 GiB", 4 * 1024**3),
        ("4GB", 4 * 10**9),
        (" 1.5 kib ", 1536),
        ("2.01 KB", 2010),
        ("0 B", 0),
        ("1 PB", 10**15),
    ],
)
def test_sizes_are_read_in_binary_and_decimal_units(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "4 GiBi", "-1", "GiB", "1e9", "1,000", "4 GiB 2 MiB", "½ GB"])
def test_what_is_no_size_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match="number of bytes"):
        parse_bytes(text)


@given(st.integers(0, 2**60))
def test_a_plain_number_of_bytes_is_exact_and_a_formatted_one_close(count: int) -> None:
    assert parse_bytes(str(count)) == count
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**52, "4.0 PiB")],
)
def test_bytes_are_written_in_binary_units(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (1.234e9, "1.23B"),
        (7e12, "7T"),
    ],
)
def test_counts_are_written_with_three_digits(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 00 min"),
    ],
)
def test_durations_never_show_sixty(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(31.2e9, "31.2 GFLOP/s"), (989e12, "989 TFLOP/s"), (2e18, "2 EFLOP/s")])
def test_rates_are_written_with_a_prefix(rate: float, text: str) -> None:
    assert format_flops(rate) == text
