"""The rows of a JSONL file or a JSON list, each with the line where it begins. Torch-free."""

from __future__ import annotations

import glob
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import require_file

ROOT = Path(__file__).resolve().parents[2]
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_SPACE = " \t\r\n"
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class Row:
    """One row: its data, and the file and line where it begins."""

    data: Any
    path: Path
    line: int

    @property
    def place(self) -> str:
        """ "file:line"."""
        return f"{self.path.name}:{self.line}"

    def error(self, found: str, expected: str) -> UserError:
        """What to raise about this row."""
        return _error(self.path, self.line, found, expected)


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths and patterns name, from the working folder or else from where Slipway lies.

    Raises:
        UserError: If one names no file.
    """
    found: list[Path] = []
    for path in map(str, paths):
        matches = sorted(glob.glob(path)) or sorted(glob.glob(str(ROOT / path)))
        found += [require_file(Path(match), "a file of conversations") for match in matches or [path]]
    return found


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a file: the items of a JSON list, or one JSON value a line; empty lines are left out.

    Raises:
        UserError: If the file is damaged or isn't JSON there; it names the line.
    """
    text = _decoded(path, _uncompressed(path))
    yield from _list_items(path, text) if text.lstrip(_SPACE)[:1] == "[" else _lines(path, text)


def _lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(_SPACE):
            continue
        try:
            yield Row(json.loads(line), path, number)
        except (ValueError, RecursionError) as error:
            raise _error(
                path, number, f"not JSON: {_words(error)}", "one JSON object a line, or one JSON list"
            ) from None


def _list_items(path: Path, text: str) -> Iterator[Row]:
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0

    def line_at(place: int) -> int:
        return line + text.count("\n", counted, place)

    expected = "items of a JSON list, with commas between them and `]` at the end"
    first = True
    while True:
        position = _after_space(text, position)
        if text[position : position + 1] == "]":
            break
        if not first:
            if text[position : position + 1] != ",":
                what = repr(text[position : position + 20]) if position < len(text) else "the end of the file"
                raise _error(path, line_at(position), f"{what} after an item", expected)
            position = _after_space(text, position + 1)
        line, counted, first = line_at(position), position, False
        try:
            data, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            place = line_at(error.pos) if isinstance(error, json.JSONDecodeError) else line
            raise _error(path, place, f"not JSON: {_words(error)}", expected) from None
        yield Row(data, path, line)
    rest = _after_space(text, position + 1)
    if rest < len(text):
        raise _error(path, line_at(rest), f"{text[rest : rest + 20]!r} after the list", "nothing")


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _uncompressed(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            return gzip.decompress(data)
        return lzma.decompress(data) if data.startswith(_XZ) else data
    except _DAMAGE as error:
        raise UserError(
            f"{path} cannot be read: {error or type(error).__name__}",
            expected="a whole JSONL file or JSON list, plain or compressed with gzip or xz",
            action="copy it again",
        ) from None


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(path, line, f"byte {data[error.start]:#04x}, which is not UTF-8", "UTF-8 text") from None


def _error(path: Path, line: int, found: str, expected: str) -> UserError:
    return UserError(f"{path}, line {line}: {found}", expected=expected, action="mend that line, or take it out")


def _words(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
