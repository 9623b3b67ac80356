"""Files and functions end where a reader's patience does, and names say what is inside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .conftest import ROOT

LONGEST_FILE = 500
LONGEST_FUNCTION = 60
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
SOURCE = {".py", ".yaml", ".yml", ".toml", ".sh", ".j2", ".html", ".css"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_source_file_is_longer_than_its_end(files: list[Path]) -> None:
    sources = [path for path in files if path.suffix in SOURCE and "requirements" not in path.parts]
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    longest = sorted(lines, key=lambda name: -lines[name])[:5]
    assert lines[longest[0]] <= LONGEST_FILE, {name: lines[name] for name in longest}


def test_no_function_is_longer_than_a_screen(python_files: list[Path]) -> None:
    lengths = {}
    for path in python_files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lengths[f"{name_of(path)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    longest = sorted(lengths, key=lambda name: -lengths[name])[:5]
    assert lengths[longest[0]] <= LONGEST_FUNCTION, {name: lengths[name] for name in longest}


def test_a_package_file_holds_a_docstring_and_nothing_else(python_files: list[Path]) -> None:
    for path in python_files:
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
            assert len(tree.body) == 1, f"{name_of(path)} holds more than its docstring"


def test_no_module_has_a_name_that_says_nothing(python_files: list[Path]) -> None:
    for path in python_files:
        relative = path.relative_to(ROOT).with_suffix("")
        words = {word for part in relative.parts for word in part.lower().strip("_").split("_")}
        assert not words & SAYS_NOTHING, name_of(path)


@pytest.mark.parametrize("folder", ["tests", "docker"])
def test_folders_that_are_no_packages_have_no_package_file(python_files: list[Path], folder: str) -> None:
    assert not [path for path in python_files if path.parts[len(ROOT.parts)] == folder and path.name == "__init__.py"]
