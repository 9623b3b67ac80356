from __future__ import annotations

import copy
import pickle

import pytest

from kit.errors import RunFailure, SlipwayError, UserError


@pytest.mark.parametrize(("kind", "code"), [(UserError, 2), (RunFailure, 1), (SlipwayError, 1)])
def test_an_error_keeps_its_three_parts_through_pickle_and_copy(kind: type[SlipwayError], code: int) -> None:
    error = kind("x.yaml: no `name`", expected="a name", action="add `name`")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert twin.parts() == error.parts() == {"found": error.found, "expected": "a name", "action": "add `name`"}
        assert str(twin) == str(error)
        assert twin.exit_code == code


def test_an_error_reads_as_three_lines() -> None:
    lines = str(UserError("a", expected="b", action="c")).splitlines()
    assert lines == ["Found: a", "Expected: b", "Do: c"]
