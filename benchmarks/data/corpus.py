"""The crawl that everything is measured on: documentation pages of Debian packages as WARC files, some of them twice.

Packages come from the machine's own package archive (`apt-get download`, no root needed) and stay in the cache. Without
apt or a network the pages are those of the embedded sample, and the result says so. Which pages are taken depends on
hashes of their paths, what is copied on the seed: the same packages give the same bytes.

    python -m benchmarks.data.corpus --cache DIR --pages N --seed N [--offline]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.data.duplicates import Truth, inject
from benchmarks.data.warc import Page, write_warc
from data_prep.sample.debian import read_members
from kit.errors import UserError

SAMPLE = Path(__file__).resolve().parents[2] / "data_prep" / "sample" / "docs.warc.gz"
# Package -> most pages of it. At full scale about 20,000 pages; smaller corpora take the same share of every package.
PACKAGES = {
    "apache2-doc": 828,
    "cppreference-doc-en-html": 2000,
    "debian-handbook": 3302,
    "erlang-doc": 1060,
    "git-doc": 241,
    "installation-guide-amd64": 1596,
    "libreoffice-help-de": 1200,
    "libreoffice-help-en-us": 1200,
    "libreoffice-help-es": 1200,
    "libreoffice-help-fr": 1200,
    "libreoffice-help-ru": 400,
    "postgresql-doc-15": 1169,
    "python-django-doc": 692,
    "python3.11-doc": 531,
    "rust-doc": 2500,
    "sqlite3-doc": 767,
}
PAGE_BYTES = (1500, 1_000_000)
FILES = 4
_FACTS = "corpus.json"


class Corpus(NamedTuple):
    """WARC files and what is known about them.

    Attributes:
        files: the WARC files, in the order in which they are read.
        truth: url, cluster, kind and sha1 of every page, tab-separated; None for files of the user's own.
        pages: response records, copies included; None for files of the user's own.
        html_bytes: their payloads together; None likewise.
        description: where the pages are from.
    """

    files: list[Path]
    truth: Path | None
    pages: int | None
    html_bytes: int | None
    description: str

    @property
    def names(self) -> list[str]:
        """The files as command-line arguments."""
        return [str(path) for path in self.files]


def own_corpus(paths: list[Path]) -> Corpus:
    """The user's own WARC files.

    Raises:
        UserError: one of them does not exist.
    """
    for path in paths:
        if not path.is_file():
            raise UserError(f"--warc {path}", expected="a WARC file", action="name files that exist, not folders")
    return Corpus([path.resolve() for path in paths], None, None, None, f"{len(paths)} own WARC files")


def build_corpus(cache: Path, pages: int, seed: int = 7, *, offline: bool = False) -> Corpus:
    """The corpus of about `pages` pages and their copies, from the cache where it was built before.

    Args:
        cache: packages and corpora stay here.
        pages: how many originals; the pool, or the embedded sample, may have fewer.
        seed: of the copies.
        offline: take the embedded sample without asking for packages.
    """
    debs = [] if offline else packages(cache / "packages")
    source = ", ".join(deb.name.removesuffix("_all.deb") for deb in debs) or "the embedded sample data_prep/sample"
    key = hashlib.sha256(f"2 {source} {pages} {seed}".encode()).hexdigest()[:12]
    folder = cache / f"corpus-{pages}-{key}"
    if not (folder / _FACTS).exists():
        originals = package_pages(debs, pages) if debs else sample_pages(pages)
        _write(folder, inject(originals, seed), source)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return Corpus(sorted(folder.glob("*.warc.gz")), folder / "truth.tsv", **facts)


def packages(folder: Path) -> list[Path]:
    """The packages, downloaded where they are missing; none where one of them cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in PACKAGES:
        if not list(folder.glob(f"{name}_*.deb")) and not _download(folder, name):
            return []
        found.append(max(folder.glob(f"{name}_*.deb")))
    return found


def _download(folder: Path, name: str) -> bool:
    try:
        subprocess.run(["apt-get", "download", name], cwd=folder, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return True


def package_pages(debs: list[Path], pages: int) -> Iterator[Page]:
    """The same share of every package, so that a larger corpus is more of the same."""
    share = min(1.0, pages / sum(PACKAGES.values()))
    for deb in debs:
        name = deb.name.split("_")[0]
        members = [
            member
            for member in read_members(deb, lambda path: path.endswith((".html", ".htm")))
            if PAGE_BYTES[0] <= len(member.content) <= PAGE_BYTES[1]
        ]
        members.sort(key=lambda member: hashlib.sha256(member.path.encode()).digest())
        for member in members[: max(1, round(share * PACKAGES[name]))]:
            yield Page(f"https://{name}.example/{member.path.removeprefix('usr/share/')}", member.content)


def sample_pages(pages: int) -> Iterator[Page]:
    """Pages of the embedded sample."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with SAMPLE.open("rb") as stream:
        for count, record in enumerate(ArchiveIterator(stream, record_types=WarcRecordType.response)):
            if count == pages:
                return
            yield Page(str(record.headers["WARC-Target-URI"]), record.reader.read())


def _write(folder: Path, pages: Iterable[tuple[Page, Truth]], source: str) -> None:
    """Writes the corpus beside its place and moves it there when it is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Originals and copies mix, as in a crawl: any stretch of the files looks like the whole.
    mixed = sorted(pages, key=lambda item: hashlib.sha256(item[0].url.encode()).digest())
    for number in range(FILES):
        write_warc(partial / f"part-{number:05d}.warc.gz", [page for page, _ in mixed[number::FILES]])
    lines = ["\t".join(truth) for _, truth in mixed]
    (partial / "truth.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    html_bytes = sum(len(page.payload) for page, _ in mixed)
    facts = {"pages": len(mixed), "html_bytes": html_bytes, "description": source}
    (partial / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    os.replace(partial, folder)


def read_truth(path: Path) -> list[Truth]:
    """The rows of a truth file."""
    return [Truth(*line.split("\t")) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Builds a corpus, which holds all its pages in memory, in a process that ends with it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.corpus", description="Build a corpus.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--offline", action="store_true")
    given = parser.parse_args()
    built = build_corpus(given.cache.resolve(), given.pages, given.seed, offline=given.offline)
    print(json.dumps({"pages": built.pages}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
