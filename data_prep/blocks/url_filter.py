"""Drops pages for their address alone, before anything of them is decoded (RefinedWeb, Penedo et al. 2023)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_prep.blocks.config import UrlFilterConfig
from data_prep.ledger import ReasonKeeper
from kit.errors import UserError

_HASH_BYTES = 8
_HEAD = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.I)
_WORD = re.compile(r"[^\W_]+")
_DEFAULT_PORTS = (":80", ":443")


class UrlFilter(BaseFilter):
    """Drops listed domains (with their subdomains), listed addresses, and addresses with listed words.

    Lists may have millions of lines: of domains and addresses 8 bytes of a hash are kept each.

    Raises:
        UserError: a list is missing or empty.
    """

    name = "url_filter"

    def __init__(self, config: UrlFilterConfig) -> None:
        super().__init__(exclusion_writer=ReasonKeeper())
        self.domains = _hashes(config.domains, "domains", lambda line: host_of(line.removeprefix("*").lstrip(".")))
        self.urls = _hashes(config.urls, "urls", canonical)
        self.banned = _words(config.banned_words, "banned_words")
        self.soft = _words(config.soft_banned_words, "soft_banned_words")
        self.soft_threshold = config.soft_threshold

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that no list names, and one that has no address."""
        url = str(doc.metadata.get("url") or "")
        if not url:
            return True
        if len(self.domains) and any(_contains(self.domains, name) for name in suffixes(host_of(url))):
            return False, "url_domain"
        if len(self.urls) and _contains(self.urls, canonical(url)):
            return False, "url_listed"
        if self.banned or self.soft:
            words = set(_WORD.findall(unquote(url).lower()))
            if not words.isdisjoint(self.banned):
                return False, "url_banned_word"
            if self.soft and len(words & self.soft) >= self.soft_threshold:
                return False, "url_soft_banned_words"
        return True


def host_of(url: str) -> str:
    """The host of an address, without user, port and closing dot; international names as ASCII."""
    return _normal_host(_split(url)[0])


def canonical(url: str) -> str:
    """An address without scheme, user, default port, `www.`, fragment and closing slash."""
    authority, rest = _split(url)
    port = re.search(r":\d+$", authority)
    shown = "" if port is None or port[0] in _DEFAULT_PORTS else port[0]
    return _normal_host(authority).removeprefix("www.") + shown + rest.split("#", 1)[0].rstrip("/")


def suffixes(host: str) -> Iterator[str]:
    """A host and the domains above it: a.b.org, b.org, org."""
    while host:
        yield host
        host = host.partition(".")[2]


def _split(url: str) -> tuple[str, str]:
    """Authority and the rest of an address; the scheme may be missing."""
    body = _HEAD.sub("", url.strip(), count=1)
    match = re.search(r"[/?#\\]", body)
    end = match.start() if match else len(body)
    return body[:end], body[end:]


def _normal_host(authority: str) -> str:
    host = re.sub(r":\d*$", "", unquote(authority.rpartition("@")[2])).rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=_HASH_BYTES).digest(), "little")


def _contains(hashes: np.ndarray, name: str) -> bool:
    wanted = np.uint64(_hash(name))
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and bool(hashes[place] == wanted)


def _hashes(paths: list[str], key: str, normal: Callable[[str], str]) -> np.ndarray:
    found = (_hash(name) for path in paths for line in _lines(path, key) if (name := normal(line)))
    return np.unique(np.fromiter(found, dtype=np.uint64))


def _words(paths: list[str], key: str) -> frozenset[str]:
    return frozenset(line.lower() for path in paths for line in _lines(path, key))


def _lines(path: str, key: str) -> Iterator[str]:
    """The lines of a list, plain or gzip; blank ones and those that begin with # say nothing."""
    opener = gzip.open if path.endswith(".gz") else open
    some = False
    try:
        with opener(Path(path), "rt", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if (text := line.strip()) and not text.startswith("#"):
                    some = True
                    yield text
    except (OSError, EOFError) as error:
        raise UserError(
            f"url_filter.{key}: {path} cannot be read ({error})",
            expected="a text file with one entry a line, plain or compressed with gzip",
            action=f"check the path; relative paths start at {Path.cwd()}",
        ) from error
    if not some:
        raise UserError(
            f"url_filter.{key}: {path} has no entry",
            expected="a text file with one entry a line",
            action="fill the file, or leave it out of the recipe",
        )
