"""Which crawl files a recipe means: files, folders, globs and URLs become one sorted list of typed inputs."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import fsspec

from data_prep.reading.members import MAGIC
from data_prep.reading.open import GZIP, XZ, open_raw
from data_prep.reading.syntax import Arc
from kit.errors import UserError

Format = Literal["warc", "arc", "jsonl"]
_HEAD_BYTES = 65536
_STEP_BYTES = 64
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class CrawlFile:
    """One input file. `path` is an fsspec address; `given` is how the recipe named it (or the file inside it)."""

    path: str
    given: str
    format: Format


@dataclass(frozen=True)
class Unsupported:
    """A file of a folder or glob that holds no crawl records; it is skipped and counted."""

    path: str
    given: str
    reason: str


def find_inputs(paths: list[str]) -> tuple[list[CrawlFile], list[Unsupported]]:
    """Expand `paths` and look into the head of every file; a folder may hold other files, a named file may not.

    Raises:
        UserError: a path does not exist, a named file is of another format, or nothing readable is left.
    """
    found: dict[str, CrawlFile] = {}
    unsupported: dict[str, Unsupported] = {}
    for given in paths:
        members, named = _expand(given)
        for path in members:
            shown = given if named else path
            kind = sniff(path)
            if kind in get_args(Format):
                found[path] = CrawlFile(path, shown, cast(Format, kind))
            elif named:
                raise UserError(
                    f"input.paths: {given} is {kind}",
                    expected="a WARC, WET, ARC or JSONL file, plain or compressed with gzip or xz",
                    action="name another file, or the folder it lies in: there, other files are skipped",
                )
            else:
                unsupported[path] = Unsupported(path, shown, kind)
    if not found:
        raise UserError(
            f"input.paths: no crawl file in {', '.join(paths[:_SHOWN_NAMES])}",
            expected="at least one WARC, WET, ARC or JSONL file, plain or compressed with gzip or xz",
            action="check the path; `file NAME` tells what a file really is",
        )
    return [found[path] for path in sorted(found)], [unsupported[path] for path in sorted(unsupported)]


def sniff(path: str) -> str:
    """Say what a file holds by its first bytes: "warc", "arc", "jsonl", or words for an error message."""
    try:
        head = read_head(path)
    except OSError as error:
        raise UserError(
            f"input.paths: {path} cannot be read ({error})",
            expected="a file that this user may read",
            action="check the path and its permissions",
        ) from error
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"WARC/"):
        return "warc"
    if Arc.begins.match(text):
        return "arc"
    if text.startswith(b"{"):
        return "jsonl"
    if (kind := _named(path)) is not None:
        return kind  # its first record is damaged; the reader looks for the next one
    if not text:
        return "an empty file, or one whose compression is damaged from the start"
    return "neither WARC, WET, ARC nor JSONL"


def _named(path: str) -> str | None:
    """What the name of a file that does not begin as it should promises, if a record may follow further on."""
    name = path.lower().removesuffix(".gz")
    kind = "warc" if name.endswith((".warc", ".wet")) else "arc" if name.endswith(".arc") else None
    with open_raw(path) as stream:
        raw = stream.read(_HEAD_BYTES)
    return kind if MAGIC in raw or (kind == "warc" and b"WARC/1." in raw) else None


def read_head(path: str) -> bytes:
    """The first bytes inside a file, as many as a damaged compression lets through."""
    with open_raw(path) as stream:
        raw = stream.read(_HEAD_BYTES)
    if raw.startswith(XZ):
        return _decompress(raw, lzma.LZMADecompressor())
    return _decompress(raw, zlib.decompressobj(wbits=31)) if raw.startswith(GZIP) else raw


def _decompress(raw: bytes, decompressor: Any) -> bytes:
    """Little by little: what comes before the damage counts."""
    head = b""
    try:
        for start in range(0, len(raw), _STEP_BYTES):
            head += decompressor.decompress(raw[start : start + _STEP_BYTES])
    except (EOFError, lzma.LZMAError, zlib.error):
        pass
    return head


def fingerprints(files: list[CrawlFile]) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of every input, by its given name."""
    return {file.given: _fingerprint(file.path) for file in files}


def _fingerprint(path: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_raw(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _expand(given: str) -> tuple[list[str], bool]:
    """The files that one entry of input.paths means, and whether it named a single file."""
    filesystem, path = _filesystem(given)
    if any(character in path for character in "*?["):
        members = [name for name in filesystem.glob(path) if filesystem.isfile(name)]
        named = False
    elif filesystem.isdir(path):
        members, named = filesystem.find(path), False
    elif filesystem.exists(path):
        members, named = [path], True
    else:
        members, named = [], False
    if not members:
        raise UserError(
            f"input.paths: {given} does not exist or holds no file",
            expected="an existing file, folder, glob or URL of crawl records",
            action=f"check the spelling; relative paths start at {Path.cwd()}",
        )
    return sorted(_address(filesystem, name) for name in members), named


def _filesystem(given: str) -> tuple[Any, str]:
    local = Path(given)
    packaged = Path(__file__).parent.parent / given
    if "://" not in given and not local.is_absolute() and not local.exists() and packaged.exists():
        given = str(packaged)
    try:
        filesystem, path = fsspec.core.url_to_fs(given)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"input.paths: {given} has an address this installation cannot open ({error})",
            expected="a local path or a URL whose fsspec package is installed",
            action="install the package that the message names, or download the file first",
        ) from error
    return filesystem, path


def _address(filesystem: Any, path: str) -> str:
    return path if "local" in _protocols(filesystem) else str(filesystem.unstrip_protocol(path))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
