"""Reading YAML, `extends`, `--set`, dumping and digests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import Config, apply_set, digest, dump, load, merge, read_yaml, resolve
from kit.errors import UserError

KEYS = st.text(alphabet="abcdefgh_", min_size=1, max_size=6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["no", "yes", "on", "~", "null", "3e-4", "12:30:00", "2026-01-01", "1_000", "0x1F", "=", "<<", ""]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(KEYS, VALUES, max_size=4)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E3", 1000.0),
        ("-7", -7),
        ("017", 17),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("12:30:00", "12:30:00"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31 10:00:00", "2026-01-31 10:00:00"),
        ("=", "="),
        ("~", None),
        ("[1, two]", [1, "two"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    read = read_yaml(write(tmp_path / "a.yaml", f"key: {text}\n"))["key"]
    assert (read, type(read)) == (value, type(value))


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path / "a.yaml", "# only a comment\n")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4"),
        ("a: [1, 2\n", "a.yaml"),
        ("a:\n\t- 1\n", "line 2"),
        ("- 1\n- 2\n", "list at the top"),
        ("a: !!python/object:os.system x\n", "python/object"),
    ],
)
def test_what_is_not_one_mapping_of_unique_keys_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_yaml(write(tmp_path / "a.yaml", text))


def test_a_missing_file_and_a_binary_file_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"binary\.yaml"):
        read_yaml(tmp_path / "binary.yaml")


@given(MAPPINGS)
def test_a_dump_reads_back_as_the_same_data(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    path = write(tmp_path_factory.getbasetemp() / "dump.yaml", dump(data))
    assert read_yaml(path) == data


@given(MAPPINGS, st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_keys(data: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(k, shuffled(v)) for k, v in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(v) for v in value] if isinstance(value, list) else value

    assert digest(shuffled(data)) == digest(data)


def test_a_digest_tells_values_and_list_orders_apart() -> None:
    digests = {digest({"a": value}) for value in (1, "1", 1.5, None, [1, 2], [2, 1], {"b": 1})}
    assert len(digests) == 7
    assert all(d.startswith("sha256:") and len(d) == 7 + 64 for d in digests)


def test_a_digest_is_the_same_in_every_process_and_version() -> None:
    # Reuse keys of finished runs hang on it: a change here makes every earlier run look different.
    canonical = '{"a":"é","b":[1,2.5,null]}'
    assert digest({"b": [1, 2.5, None], "a": "é"}) == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def test_merge_goes_into_mappings_and_replaces_everything_else() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merge(base, {"a": {"c": [3]}, "d": {"e": 5}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 5}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_extends_is_read_relative_to_the_file_and_merged_deeply(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "base.yaml", "name: base\nmodel: {layers: 2, hidden: 64}\n")
    child = write(tmp_path / "sub" / "child.yaml", "extends: ../base.yaml\nmodel: {layers: 4}\n")
    assert resolve(child) == {"name": "base", "model": {"layers": 4, "hidden": 64}}


def test_extends_goes_one_level_only(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "x: 1\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(UserError, match=r"b\.yaml: `extends: a\.yaml`"):
        resolve(write(tmp_path / "c.yaml", "extends: b.yaml\n"))
    with pytest.raises(UserError, match="extends"):
        resolve(write(tmp_path / "self.yaml", "extends: self.yaml\n"))


def test_a_missing_extended_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml"):
        resolve(write(tmp_path / "a.yaml", "extends: gone.yaml\n"))


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "c": 3}}),
        ("a.b=3e-4", {"a": {"b": 3e-4, "c": 3}}),
        ("a.b=no", {"a": {"b": "no", "c": 3}}),
        ("a.b=", {"a": {"b": None, "c": 3}}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": 3}}),
        ("a.b=[1, 'two']", {"a": {"b": [1, "two"], "c": 3}}),
        ("a={d: 4}", {"a": {"b": 1, "c": 3, "d": 4}}),
        ("new.deep.key=1", {"a": {"b": 1, "c": 3}, "new": {"deep": {"key": 1}}}),
    ],
)
def test_set_lays_one_yaml_value_at_a_dotted_key(assignment: str, expected: dict[str, Any]) -> None:
    before = {"a": {"b": 1, "c": 3}}
    assert apply_set(before, assignment) == expected
    assert before == {"a": {"b": 1, "c": 3}}


@pytest.mark.parametrize("assignment", ["a.b", "=1", "a..b=1", ".a=1", "a.b.c=1", "a.b=[1", "a.b={x: 1, x: 2}"])
def test_a_set_that_cannot_be_applied_is_a_user_error(assignment: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_set({"a": {"b": 1}}, assignment)
    assert assignment in str(caught.value)


def test_later_sets_win_and_sets_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a: {b: 1}\n")
    assert resolve(path, ["a.b=2", "a.b=3"]) == {"a": {"b": 3}}


def test_load_is_resolve_then_parse(tmp_path: Path) -> None:
    class Small(Config):
        steps: int
        rate: float = 0.5

    path = write(tmp_path / "small.yaml", "steps: 10\n")
    assert load(Small, path, ["rate=3e-4"]) == Small(steps=10, rate=3e-4)
    with pytest.raises(UserError, match=r"small\.yaml.*step_count"):
        load(Small, path, ["step_count=1"])
