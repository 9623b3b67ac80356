from __future__ import annotations

import os
from typing import Any

import pytest

from kit.config import parse
from kit.errors import UserError
from kit.target import Target


@pytest.mark.parametrize(
    ("target", "processes", "accelerators", "settled"),
    [
        ({}, 1, 0, {"device": "cpu", "threads_per_process": 6, "devices_per_host": 6}),
        ({}, 2, 0, {"device": "cpu", "threads_per_process": 1, "devices_per_host": 6}),
        ({}, 4, 8, {"device": "cuda", "threads_per_process": 1, "devices_per_host": 8}),
        ({"device": "cpu"}, 1, 8, {"device": "cpu", "threads_per_process": 6, "devices_per_host": 6}),
        ({"threads_per_process": 3, "devices_per_host": 2}, 2, 0, {"threads_per_process": 3, "devices_per_host": 2}),
    ],
)
def test_settle_leaves_no_auto(
    monkeypatch: pytest.MonkeyPatch, target: dict[str, Any], processes: int, accelerators: int, settled: dict[str, Any]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    values = Target(**target).settle(processes, accelerators).model_dump()
    assert "auto" not in values.values()
    assert settled.items() <= values.items()


def test_four_processes_fit_on_a_machine_of_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert Target().settle(4, 0).devices_per_host == 4


def test_what_settle_keeps_is_what_the_file_said() -> None:
    target = Target(restarts=2, stop_grace_seconds=5).settle(1, 0)
    assert (target.restarts, target.stop_grace_seconds, target.kind) == (2, 5.0, "local")
    assert target.settle(9, 9) == target


def test_a_value_that_fits_no_alternative_is_named_once_with_all_of_them() -> None:
    with pytest.raises(UserError) as caught:
        parse(Target, {"threads_per_process": "many"}, "laptop.yaml")
    assert caught.value.found == "laptop.yaml: `threads_per_process` is 'many'"
    assert "integer" in caught.value.expected
    assert "'auto'" in caught.value.expected
