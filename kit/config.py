"""Configuration: YAML 1.2 files, one `extends:` level, `--set a.b=c`, validated by pydantic, with a digest."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError

from kit.errors import UserError
from kit.files import require_file


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=pydantic.BaseModel)


class _Constructor(SafeConstructor):
    """Builds what YAML 1.2 knows; dates and `=` are tags of YAML 1.1 that the library still resolves."""


for _tag in ("timestamp", "value"):
    _Constructor.add_constructor(f"tag:yaml.org,2002:{_tag}", SafeConstructor.construct_yaml_str)


_SHORT = reprlib.Repr()
_SHORT.maxstring = 200


def _yaml() -> YAML:
    # The pure loader reads YAML 1.2: `3e-4` is a number, `no` a string, `12:30:00` a string; repeated keys are refused.
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads one YAML 1.2 mapping.

    Raises:
        UserError: If the file is missing, is not YAML, repeats a key, or is not a mapping.
    """
    require_file(path, "a YAML file")
    try:
        data = _yaml().load(path.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        raise UserError(
            f"{path}, line {_line_of(error)}: {error.problem}",
            expected="every key once",
            action="remove one of the two",
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}, line {_line_of(error)}: {getattr(error, 'problem', None) or error}",
            expected="YAML 1.2 text",
            action="mend that line (indentation and quotes are the usual reasons)",
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(
            f"{path}: {type(data).__name__} at the top", expected="a mapping of keys", action="write `key: value` lines"
        )
    return data


def _line_of(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return "?" if mark is None else str(mark.line + 1)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `over` laid on it: mappings are merged key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def apply_set(data: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """Returns `data` with one `a.b=value` applied; the value is read as YAML.

    Raises:
        UserError: If there is no `=`, a part of the key is empty, or a part on the way is not a mapping.
    """
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(
            f"--set {assignment!r}", expected="--set key=value or --set a.b=value", action="mend the argument"
        )
    try:
        value: Any = _yaml().load(text) if text.strip() else None
    except YAMLError as error:
        raise UserError(
            f"--set {assignment!r}: {getattr(error, 'problem', error)}",
            expected="a YAML value after the `=`",
            action="quote the value, as in --set 'a.b=\"text: with colon\"'",
        ) from None
    here: Any = data
    for depth, part in enumerate(parts[:-1], start=1):
        here = here.get(part, {})
        if not isinstance(here, Mapping):
            raise UserError(
                f"--set {assignment!r}: {'.'.join(parts[:depth])} is {here!r}, not a mapping",
                expected="a dotted key that leads through mappings",
                action="see the keys with `slipway plan`",
            )
    for part in reversed(parts):
        value = {part: value}
    return merge(data, value)


def resolve(path: Path, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a YAML file with its one `extends:` (relative to the file) and applies `--set` assignments in order.

    Raises:
        UserError: As `read_yaml` and `apply_set`; also if the extended file extends another.
    """
    data = read_yaml(path)
    parent = data.pop("extends", None)
    if parent is not None:
        base_path = path.parent / str(parent)
        base = read_yaml(base_path)
        if "extends" in base:
            raise UserError(
                f"{base_path}: `extends: {base['extends']}`, and {path} extends that file",
                expected="one level of `extends`",
                action=f"let {path.name} extend the last file of the row, or merge two of them",
            )
        data = merge(base, data)
    for assignment in sets:
        data = apply_set(data, assignment)
    return data


def parse(model: type[ConfigT], data: Mapping[str, Any], source: str) -> ConfigT:
    """Validates data against a model.

    Args:
        model: The pydantic model.
        data: What was read.
        source: The file (or words) that errors name.

    Raises:
        UserError: With the dotted key of the first fault, and a "did you mean" for an unknown key.
    """
    try:
        return model.model_validate(dict(data))
    except pydantic.ValidationError as error:
        raise _as_user_error(model, error, source) from None


def load(model: type[ConfigT], path: Path, sets: Sequence[str] = ()) -> ConfigT:
    """Reads, resolves and validates a configuration file: `resolve`, then `parse`."""
    return parse(model, resolve(path, sets), str(path))


def _as_user_error(model: type[pydantic.BaseModel], error: pydantic.ValidationError, source: str) -> UserError:
    faults = error.errors()
    # An unknown key often explains a missing one (a typo makes both), so it is the one worth saying.
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    written, known = _walk(model, fault["loc"])
    dotted = ".".join(written) or "(top)"
    # Every alternative of a union reports its own fault; to the reader they are one.
    same = [f for f in faults if _walk(model, f["loc"])[0] == written]
    others = f" (and {len(faults) - len(same)} more)" if len(faults) > len(same) else ""
    if fault["type"] == "extra_forbidden":
        return UserError(
            f"{source}: unknown key `{dotted}`{others}",
            expected=f"one of: {', '.join(known)}" if known else "no further keys here",
            action=_did_you_mean(written[-1], known),
        )
    if fault["type"] == "missing":
        return UserError(
            f"{source}: `{dotted}` is missing{others}", expected="a value for it", action=f"add `{dotted}`"
        )
    messages = " or ".join(f["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for f in same)
    if isinstance(fault["input"], Mapping) and fault["type"] in ("value_error", "assertion_error"):
        # A model's own check over several keys; the whole mapping would bury what it says.
        place = f"`{dotted}`: " if written else ""
        return UserError(
            f"{source}: {place}{messages}{others}",
            expected="values that fit together",
            action="change one of the keys that it names",
        )
    return UserError(
        f"{source}: `{dotted}` is {_SHORT.repr(fault['input'])}{others}",
        expected=messages,
        action=f"change `{dotted}`",
    )


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else "remove the key, or see the keys with `slipway plan`"


def _walk(model: type[pydantic.BaseModel], location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """Follows a location of pydantic's from a model downwards.

    Returns:
        The parts that a person wrote (pydantic also puts in which alternative of a union it tried), and the keys that
        are known where the last part stands.
    """
    written: list[str] = []
    here: list[Any] = [model]
    above = here
    for part in location:
        if len(here) > 1:
            here = [a for a in here if _is_called(a, str(part))] or here
            continue
        written.append(str(part))
        above, here = here, [a for alternative in here for a in _below(alternative, part)]
    return written, sorted({name for a in above if _is_model(a) for name in a.model_fields})


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _is_called(alternative: Any, label: str) -> bool:
    """Whether pydantic's label of a union's alternative (its name, or its tag) means this one."""
    if not _is_model(alternative):
        return False
    tags = [tag for field in alternative.model_fields.values() for tag in typing.get_args(field.annotation)]
    return label in tags or alternative.__name__ in re.split(r"\W+", label)


def _below(annotation: Any, part: int | str) -> list[Any]:
    """Returns the alternatives of what lies under a field, a mapping's key or a list's index."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return _alternatives(field.annotation) if field else []
    # The last argument is the element of list[X] and the value of dict[str, X].
    return [a for argument in typing.get_args(annotation)[-1:] for a in _alternatives(argument)]


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [a for argument in typing.get_args(annotation) for a in _alternatives(argument)]
    return [] if annotation is type(None) else [annotation]


def to_data(config: pydantic.BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration as plain JSON-like data."""
    return config.model_dump(mode="json") if isinstance(config, pydantic.BaseModel) else dict(config)


def dump(config: pydantic.BaseModel | Mapping[str, Any]) -> str:
    """Returns a configuration as YAML text that `read_yaml` reads back to the same data."""
    yaml = _yaml()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(to_data(config), stream)
    return stream.getvalue()


def digest(config: pydantic.BaseModel | Mapping[str, Any]) -> str:
    """Returns `sha256:...` over the canonical JSON (sorted keys, no spaces), whatever the order of keys."""
    text = json.dumps(to_data(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
