"""Configuration: YAML 1.2 files, one `extends:` level, `--set a.b=c`, validated by pydantic, with a digest."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from kit.errors import UserError
from kit.files import require_file


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=pydantic.BaseModel)


def _yaml() -> YAML:
    # The pure loader reads YAML 1.2: `3e-4` is a number, `no` a string, `12:30:00` a string; repeated keys are refused.
    return YAML(typ="safe", pure=True)


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
    location = tuple(part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    dotted = ".".join(str(part) for part in location) or "(top)"
    others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return UserError(
            f"{source}: unknown key `{dotted}`{others}",
            expected=f"one of: {', '.join(known)}" if known else "no further keys here",
            action=_did_you_mean(str(location[-1]), known),
        )
    if fault["type"] == "missing":
        return UserError(
            f"{source}: `{dotted}` is missing{others}", expected="a value for it", action=f"add `{dotted}`"
        )
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return UserError(
        f"{source}: `{dotted}` is {fault['input']!r}{others}", expected=message, action=f"change `{dotted}`"
    )


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else "remove the key, or see the keys with `slipway plan`"


def _keys_at(model: type[pydantic.BaseModel], location: Sequence[Any]) -> list[str]:
    candidates: list[type[pydantic.BaseModel]] = [model]
    for part in location:
        annotations = [c.model_fields[part].annotation for c in candidates if part in c.model_fields]
        if annotations:
            candidates = [m for a in annotations for m in _models_in(a)]
        # A part that is no field is a list index, a mapping key or a union tag: the candidates stay.
    return sorted({name for c in candidates for name in c.model_fields})


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if arguments := typing.get_args(annotation):
        return [m for argument in arguments for m in _models_in(argument)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel) else []


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
