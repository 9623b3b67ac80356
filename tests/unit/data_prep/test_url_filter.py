"""The URL filter: what each list drops, and what looks like it but stays."""

import gzip
from pathlib import Path

import pytest
from datatrove.data import Document

from data_prep.blocks.config import UrlFilterConfig
from data_prep.blocks.url_filter import UrlFilter, canonical, host_of
from kit.errors import UserError


@pytest.fixture
def block(tmp_path: Path) -> UrlFilter:
    lists = {
        "domains": "# a comment\nbad.example\n*.worse.example\n\nbücher.example\nEvil.Example.\n",
        "urls": "http://fine.example/one/page\nhttps://www.fine.example/q?a=1#top\n",
        "banned_words": "Gamble\nmot-clé\n",
        "soft_banned_words": "cheap\nfree\npills\n",
    }
    paths = {}
    for key, text in lists.items():
        paths[key] = str(tmp_path / f"{key}.txt.gz")
        (tmp_path / f"{key}.txt.gz").write_bytes(gzip.compress(text.encode()))
    return UrlFilter(UrlFilterConfig(**paths))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://bad.example/", "url_domain"),
        ("https://a.b.bad.example:8443/x?y", "url_domain"),
        ("http://user:pw@bad.example/", "url_domain"),
        ("http://fine.example@bad.example", "url_domain"),
        ("HTTP://BAD.EXAMPLE./x", "url_domain"),
        ("//x.worse.example?q", "url_domain"),
        ("http://evil.example\\@fine.example/", "url_domain"),
        ("http://xn--bcher-kva.example/", "url_domain"),
        ("http://www.BÜCHER.example/", "url_domain"),
        ("http://notbad.example/", None),
        ("http://bad.example.org/", None),
        ("http://fine.example/bad.example", None),
        ("http://bad.example@fine.example/", None),
        ("https://www.fine.example:443/one/page/", "url_listed"),
        ("http://fine.example/q?a=1", "url_listed"),
        ("http://fine.example:81/one/page", None),
        ("http://fine.example/one/page/two", None),
        ("http://fine.example/GAMBLE-now", "url_banned_word"),
        ("http://fine.example/%67amble", "url_banned_word"),
        ("http://fine.example/gambler", None),
        ("http://fine.example/cheap-cheap", None),
        ("http://fine.example/cheap/FREE", "url_soft_banned_words"),
        ("", None),
        ("dns:fine.example", None),
        ("http://[::1]:80/", None),
        ("http://%zz\ud800/", None),
    ],
)
def test_drops_by_reason(block: UrlFilter, url: str, reason: str | None) -> None:
    verdict = block.filter(Document(text="", id="1", metadata={"url": url}))
    assert verdict == (True if reason is None else (False, reason))


def test_a_page_without_address_stays(block: UrlFilter) -> None:
    assert block.filter(Document(text="", id="1", metadata={})) is True


def test_leaves_the_reason_in_the_document(block: UrlFilter) -> None:
    document = Document(text="", id="1", metadata={"url": "http://bad.example/"})
    assert list(block.run([document])) == []
    assert document.metadata["filter_reason"] == "url_domain"


def test_normal_forms() -> None:
    assert host_of("https://u:p@Exämple.org:80/x") == "xn--exmple-cua.org"
    assert canonical("http://www.x.org:80/a/#b") == canonical("https://x.org/a") == "x.org/a"


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("\n# only this\n", "has no entry")])
def test_refuses_a_list_that_says_nothing(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        UrlFilter(UrlFilterConfig(domains=[str(path)]))


def test_refuses_a_damaged_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"bad.example\n" * 99)[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        UrlFilter(UrlFilterConfig(urls=[str(path)]))
