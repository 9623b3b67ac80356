"""Makes `docs.warc.gz`, the crawl sample that ships with the kit, from Debian documentation packages.

    python -m data_prep.sample.make_sample --packages DIR --out FILE [--download]

DIR holds the packages that `sources.toml` pins by version and sha256; with `--download` those missing are fetched
first with `apt-get download`. What is taken is decided by the rules in `sources.toml` and by hashes of paths, never
by chance: two runs write the same bytes. Pages go in untouched.

Progress goes to standard error; the table of what was taken goes to standard output.
"""

import argparse
import hashlib
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from data_prep.sample.debian import Member, download_package, find_package, package_path, read_members
from data_prep.sample.records import Page, response_record, warcinfo_record
from kit.errors import UserError

SOURCES = Path(__file__).with_name("sources.toml")

_NOT_PROSE = re.compile(rb"(?is)<!--.*?-->|<(head|script|style|nav|header|footer|svg|a)\b.*?</\1\s*>")
_TAG = re.compile(rb"<[^>]*>")
_SPACE = re.compile(rb"\s+")
_CHARSET = re.compile(rb"""(?i)<meta[^>]*?charset\s*=\s*["']?([a-z0-9_-]+)""")


@dataclass(frozen=True)
class Pick:
    """One rule: which pages of a package to take.

    Attributes:
        language: What the package says these pages are written in (BCP 47).
        paths: Patterns under the source's root; `*` stays within one folder.
        pages: How many to take at most; the order is by hash of the path.
        prose_bytes: Smallest and largest amount of text outside links and navigation.
        skip: Patterns to leave out, for licence or sense.
        html_bytes: Largest page; the rest is mostly drawings and tables.
        again: How many of them come a second time, under the source's `mirror` address.
    """

    language: str
    paths: list[str]
    pages: int
    prose_bytes: tuple[int, int] = (1500, 60_000)
    skip: tuple[str, ...] = ()
    html_bytes: int = 100_000
    again: int = 0


@dataclass(frozen=True)
class Source:
    """One package and the public site whose pages it holds."""

    package: str
    version: str
    sha256: str
    root: str
    url: str
    picks: list[Pick]
    mirror: str = ""
    bare_urls: bool = False
    charset: str = "UTF-8"


def load_sources(path: Path) -> tuple[str, list[Source]]:
    """The fixed WARC-Date and the sources, as `sources.toml` gives them."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    sources = []
    for entry in table["source"]:
        picks = [Pick(**pick) for pick in entry.pop("pick")]
        sources.append(Source(picks=picks, **entry))
    return table["warc_date"], sources


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns covers the path, folder by folder."""
    return any(path.count("/") == pattern.count("/") and fnmatchcase(path, pattern) for pattern in patterns)


def prose_bytes(payload: bytes) -> int:
    """Bytes of text outside links, scripts and navigation: a rough measure that needs no HTML parser."""
    return len(_SPACE.sub(b" ", _TAG.sub(b"", _NOT_PROSE.sub(b"", payload))).strip())


def page_charset(payload: bytes, default: str) -> str:
    """The encoding that the page declares, as it spells it; else the source's default."""
    declared = _CHARSET.search(payload[:4096])
    return declared[1].decode("ascii") if declared else default


def page_url(base: str, path: str, bare: bool) -> str:
    """The public address of a page: index pages by their folder, and `bare` sites without `.html`."""
    if path == "index.html" or path.endswith("/index.html"):
        return base + path.removesuffix("index.html")
    return base + (path.removesuffix(".html") + "/" if bare else path)


def path_order(member: Member) -> str:
    """Sort key that spreads a choice over a package: the hash of the path."""
    return hashlib.sha256(member.path.encode()).hexdigest()


def take(source: Source, members: list[Member]) -> Iterator[Page]:
    """Apply a source's rules in order; a page taken by one rule is gone for the next."""
    taken: set[str] = set()
    ordered = sorted(members, key=path_order)
    for pick in source.picks:
        least, most = pick.prose_bytes
        count = 0
        for member in ordered:
            path = member.path.removeprefix(source.root)
            if count == pick.pages:
                break
            if path in taken or not matches(path, pick.paths) or matches(path, pick.skip):
                continue
            if len(member.content) > pick.html_bytes or not least <= prose_bytes(member.content) <= most:
                continue
            taken.add(path)
            count += 1
            bases = [source.url, source.mirror] if count <= pick.again else [source.url]
            for base in bases:
                yield Page(
                    page_url(base, path, source.bare_urls),
                    source.package,
                    pick.language,
                    page_charset(member.content, source.charset),
                    member.content,
                    member.modified_seconds,
                )


def read_source(folder: Path, source: Source) -> list[Page]:
    """Every page that the rules take from one package.

    Raises:
        UserError: The package is missing or not the pinned one, or its pages are not where the rules look.
    """
    deb = find_package(folder, source.package, source.version, source.sha256)
    patterns = [source.root + pattern for pick in source.picks for pattern in pick.paths]
    pages = list(take(source, list(read_members(deb, lambda path: matches(path, patterns)))))
    if not pages:
        raise UserError(
            f"no page of {deb.name} that the rules take",
            expected=f"HTML pages under {source.root}",
            action=f"correct `root` and `paths` of {source.package} in {SOURCES.name}",
        )
    return pages


def write_sample(out: Path, date: str, pages: list[Page]) -> None:
    """Write the WARC: a warcinfo record, then the pages in the order of their hashed addresses."""
    seconds = int(datetime.fromisoformat(date).timestamp())
    info = {
        "software": "slipway data_prep.sample.make_sample",
        "format": "WARC File Format 1.1",
        "conformsTo": "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/",
        "description": "Documentation pages from Debian packages; licences in NOTICE.md. The HTTP envelope is made up.",
        "isPartOf": "slipway-sample-docs",
    }
    # Packages and languages mix, as in a crawl: any stretch of the file looks like the whole.
    ordered = sorted(pages, key=lambda page: hashlib.sha256(page.url.encode()).digest())
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(warcinfo_record(date, info))
            for page in ordered:
                stream.write(response_record(page, date, seconds))
        partial.replace(out)
    except OSError as error:
        raise UserError(
            f"{out}: {error.strerror}", expected="a place to write to", action="give another --out"
        ) from None


def summary(pages: list[Page]) -> str:
    """Markdown table: package, language, pages, distinct payloads, payload bytes."""
    groups: dict[tuple[str, str], list[Page]] = defaultdict(list)
    for page in pages:
        groups[page.package, page.language].append(page)
    lines = ["| package | language | pages | distinct | bytes |", "|---|---|---|---|---|"]
    for (package, language), group in sorted(groups.items()):
        distinct = len({page.payload for page in group})
        lines.append(f"| {package} | {language} | {len(group)} | {distinct} | {sum(len(p.payload) for p in group)} |")
    return "\n".join(lines)


def make(folder: Path, out: Path, download: bool) -> list[Page]:
    """Read the packages, choose the pages, write the sample; returns the pages.

    Raises:
        UserError: A package, a tool or a folder is not as needed.
    """
    date, sources = load_sources(SOURCES)
    if download:
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}", expected="a folder with the .deb files", action="make it, or add --download"
        )
    pages: list[Page] = []
    for source in sources:
        if download and package_path(folder, source.package, source.version) is None:
            print(f"downloading {source.package} {source.version}", file=sys.stderr)
            download_package(folder, source.package, source.version)
        print(f"reading {source.package} {source.version}", file=sys.stderr)
        pages += read_source(folder, source)
    repeated = [url for url, count in Counter(page.url for page in pages).items() if count > 1]
    assert not repeated, f"two pages at one address: {repeated[:3]}"
    write_sample(out, date, pages)
    return pages


def main() -> int:
    """Command line; 0 when the sample was written, 2 when the user has to act first."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.sample.make_sample", description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR", help="folder with the .deb files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .warc.gz to write")
    parser.add_argument("--download", action="store_true", help="fetch missing packages with apt-get download")
    arguments = parser.parse_args()
    try:
        pages = make(arguments.packages, arguments.out, arguments.download)
    except UserError as error:
        print(f"make_sample: nothing written\n{error}", file=sys.stderr)
        return error.exit_code
    print(summary(pages))
    print(f"\n{len(pages)} pages, {arguments.out.stat().st_size} bytes in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
