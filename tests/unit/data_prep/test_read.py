"""Reading: every kind of file, and damage that costs only the damaged record."""

import gzip
import lzma
import random
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest

from data_prep.blocks.config import ReadConfig
from data_prep.blocks.read import DecodeRecords, RecordReader, read_file
from data_prep.inputs import CrawlFile, find_inputs, fingerprints
from data_prep.reading.window import Window
from kit.errors import UserError

from .conftest import http, record

PAGE = b"<html><body><p>words and words</p></body></html>"

# What the real edge-case files hold: pages, and drops by reason.
EXPECTED = {
    "archive_org_2008_299resp.warc.gz": {"page": 94, "not_html": 120, "not_http": 38, "http_status": 47},
    "bl_govuk_b_revisits.warc.gz": {"page": 6, "not_http": 3, "http_status": 1, "revisit": 55},
    "cc_clipped_record.warc.gz": {"truncated_record": 1},
    "cc_commoncrawl_org.warc.gz": {"page": 1},
    "cc_main_2020_34_16pages.warc.gz": {"page": 16},
    "cc_main_2024_22_one.warc.gz": {"page": 1},
    "cc_main_2024_22_one.warc.wat.gz": {},
    "cc_main_2024_22_one.warc.wet.gz": {"page": 1},
    "cc_net_sample_wet_headers.txt": {"corrupt_record": 4},  # made by hand: every length is wrong
    "clueweb09_ja_warc018.warc.gz": {"page": 29},
    "edge_arc.arc.gz": {"page": 1},
    "edge_bad_target_uri.warc.gz": {"page": 1},
    "edge_brotli.warc.gz": {"page": 1},
    "edge_chunked_te.warc": {"page": 1},
    "edge_gzip_extra_sl.warc.gz": {},
    "edge_nonchunked_gzip.warc.gz": {"page": 1, "http_status": 1, "revisit": 1},
    "edge_transfer_gzip.warc.gz": {"page": 1},
    "edge_truncated.warc": {"corrupt_record": 1},
    "edge_wrong_chunks.warc.gz": {"page": 1},
    "wget_archive_org.warc.gz": {"page": 2, "not_html": 5, "http_status": 9},
    "wget_dolma_0000.warc.gz": {"page": 22},
}


def outcomes(path: Path, kind: str = "warc", config: ReadConfig | None = None) -> Counter[str]:
    decode, counts = DecodeRecords(config), Counter()
    for document in read_file(CrawlFile(str(path), path.name, kind), config):
        verdict = decode.filter(document)
        counts["page" if verdict is True else verdict[1]] += 1
    return counts


def test_reads_the_real_edge_case_files(crawl_folder: Path) -> None:
    files, skipped = find_inputs([str(crawl_folder)])
    assert not skipped
    assert {Path(file.given).name: dict(outcomes(Path(file.path), file.format)) for file in files} == EXPECTED


def test_decodes_character_sets_and_encodings(crawl_folder: Path) -> None:
    texts = {}
    for name in ("clueweb09_ja_warc018.warc.gz", "edge_brotli.warc.gz", "edge_chunked_te.warc"):
        document = next(read_file(CrawlFile(str(crawl_folder / name), name, "warc")))
        assert DecodeRecords().filter(document) is True
        texts[name] = document.text
    assert "ブラウニー" in texts["clueweb09_ja_warc018.warc.gz"]
    assert "Simple page" in texts["edge_brotli.warc.gz"]
    assert texts["edge_chunked_te.warc"].lstrip().startswith("<!doctype html>")


@pytest.fixture
def members() -> list[bytes]:
    return [record(http(PAGE + str(number).encode() * 300), f"http://example.org/{number}") for number in range(9)]


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_a_damaged_record_costs_only_itself(
    compress: Callable[[bytes], bytes], members: list[bytes], tmp_path: Path
) -> None:
    packed = [compress(member) for member in members]
    packed[4] = b"\x00" * len(packed[4])
    path = tmp_path / "damaged.warc"
    path.write_bytes(b"".join(packed))
    assert outcomes(path) == {"page": 8, "corrupt_record": 1}


def test_damage_inside_a_gzip_member(members: list[bytes], tmp_path: Path) -> None:
    packed = [bytearray(gzip.compress(member)) for member in members]
    packed[4][60:90] = b"\xff" * 30
    path = tmp_path / "damaged.warc.gz"
    path.write_bytes(b"".join(packed))
    counts = outcomes(path)
    assert counts["page"] == 8
    assert counts["corrupt_record"] + counts["truncated_record"] == 1


def test_a_file_whose_first_member_is_damaged_is_read_from_the_second(members: list[bytes], tmp_path: Path) -> None:
    packed = [gzip.compress(member) for member in members]
    packed[0] = packed[0][:10] + bytes(len(packed[0]) - 10)
    path = tmp_path / "damaged.warc.gz"
    path.write_bytes(b"".join(packed))
    (file,), skipped = find_inputs([str(path)])
    assert not skipped
    assert outcomes(Path(file.path)) == {"page": len(members) - 1, "corrupt_record": 1}


def test_a_cut_download_keeps_what_came(members: list[bytes], tmp_path: Path) -> None:
    whole = b"".join(gzip.compress(member) for member in members)
    path = tmp_path / "cut.warc.gz"
    path.write_bytes(whole[:-60])
    counts = outcomes(path)
    assert counts["page"] == 8
    assert sum(counts.values()) == 9


def test_reads_xz_and_jsonl(members: list[bytes], tmp_path: Path, jsonl: Callable[[list[object]], Path]) -> None:
    packed = tmp_path / "pages.warc.xz"
    packed.write_bytes(lzma.compress(b"".join(members)))
    assert outcomes(packed) == {"page": 9}
    rows = jsonl([{"text": "one"}, "{broken", {"no_text": 1}, {"text": "two", "id": "b", "url": "u"}, {"text": " "}])
    assert outcomes(rows, "jsonl") == {"page": 2, "corrupt_record": 2, "empty_body": 1}
    packed = tmp_path / "texts.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes()))
    assert outcomes(packed, "jsonl") == outcomes(rows, "jsonl")


def test_says_why_a_response_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "odd.warc"
    path.write_bytes(
        record(http(PAGE, status=404))
        + record(http(b"\x89PNG", content_type="image/png"))
        + record(b"example.org has address 192.0.2.1", "dns:example.org")
        + record(http(b"\x1f\x8b\x08broken\x00\x00\x00", Content_Encoding="gzip"))
        + record(http(b""))
        + record(http(PAGE, Content_Encoding="gzip"))  # says gzip, is plain: crawlers do that
        + record(b"", kind="revisit")
    )
    assert outcomes(path) == {
        "http_status": 1,
        "not_html": 1,
        "not_http": 1,
        "undecodable_content": 1,
        "empty_body": 1,
        "page": 1,
        "revisit": 1,
    }


SPLITS = (2, 3, 7, 64)


def shares(files: list[CrawlFile], tasks: int, limit: int | None = None) -> list[list[str]]:
    reader = RecordReader(files, limit)
    return [[document.id for document in reader.run(None, rank, tasks)] for rank in range(tasks)]


@pytest.mark.parametrize("tasks", SPLITS)
@pytest.mark.parametrize("pack", [gzip.compress, bytes, lzma.compress])
def test_tasks_share_files_without_loss_and_in_order(
    pack: Callable[[bytes], bytes], tasks: int, members: list[bytes], tmp_path: Path
) -> None:
    for name in ("a.warc", "b.warc"):
        packed = [pack(member) for member in members] if pack is gzip.compress else [pack(b"".join(members))]
        (tmp_path / name).write_bytes(b"".join(packed))
    files, _ = find_inputs([str(tmp_path)])
    whole = [document.id for file in files for document in read_file(file)]
    assert len(whole) == 2 * len(members)
    parts = [name for share in shares(files, tasks) for name in share]
    if pack is lzma.compress or tasks == len(files):
        parts.sort(key=whole.index)
    assert parts == whole


def test_tasks_share_lines_without_loss(jsonl: Callable[[list[object]], Path]) -> None:
    rows: list[object] = [{"text": "words " * (number % 40)} for number in range(200)]
    path = jsonl([*rows[:50], "", "{broken", *rows[50:]])
    files, _ = find_inputs([str(path)])
    (whole,) = shares(files, 1)
    assert len(whole) == 201
    for tasks in SPLITS:
        assert [name for share in shares(files, tasks) for name in share] == whole
        assert shares(files, tasks, limit=5) == [whole[:5][rank::tasks] for rank in range(tasks)]


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_a_crawl_inside_a_record_is_not_read_as_records(
    pack: Callable[[bytes], bytes], members: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is itself a crawl file, stored without further compression: it looks like records in the middle."""
    inner = b"".join(pack(member) for member in members)
    outer = record(http(inner, content_type="application/warc"), "http://example.org/crawl")
    stored = gzip.compress(outer, compresslevel=0) if pack is gzip.compress else outer
    path = tmp_path / "nested.warc"
    path.write_bytes(b"".join([pack(members[0]), stored, *[pack(member) for member in members * 3]]))
    for kind in ("members.MemberRecords", "records.PlainRecords"):
        monkeypatch.setattr(f"data_prep.reading.{kind}.back", len(stored))
    files, _ = find_inputs([str(path)])
    (whole,) = shares(files, 1)
    assert len(whole) == 1 + 1 + 3 * len(members)
    for tasks in SPLITS:
        assert [name for share in shares(files, tasks) for name in share] == whole


def test_many_tasks_do_not_read_a_file_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    packed = [gzip.compress(record(http(generator.randbytes(40_000)))) for _ in range(100)]
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(b"".join(packed))
    files, _ = find_inputs([str(path)])
    monkeypatch.setattr("data_prep.reading.members.MemberRecords.back", 100_000)
    read = 0
    original = Window._read

    def counted(self: Window, count: int) -> bytes:
        nonlocal read
        piece = original(self, count)
        read += len(piece)
        return piece

    monkeypatch.setattr(Window, "_read", counted)
    monkeypatch.setattr("data_prep.reading.window._CHUNK", 1 << 15)
    monkeypatch.setattr("data_prep.reading.open._FIRST_BYTES", 1 << 15)
    monkeypatch.setattr("data_prep.reading.members._SEARCH_BYTES", 1 << 15)
    assert len([name for share in shares(files, 20) for name in share]) == len(packed)
    assert read < 4 * path.stat().st_size


def test_limits_of_a_record_and_a_page(members: list[bytes], tmp_path: Path) -> None:
    config = ReadConfig(max_record_bytes=200_000, max_page_bytes=100_000)
    page = b"<p>many words</p>" * 20_000
    odd = [
        record(http(page)),
        record(http(gzip.compress(page), Content_Encoding="gzip")),
        record(http(zlib.compress(page), Content_Encoding="deflate")),
        record(http(brotli.compress(page), Content_Encoding="br")),
        record(http(page[:150_000])),
    ]
    expected = {"record_too_large": 1, "page_too_large": 4, "page": len(members)}
    for pack in (gzip.compress, bytes):
        path = tmp_path / "large.warc"
        path.write_bytes(b"".join(pack(item) for item in [*members[:3], *odd, *members[3:]]))
        assert outcomes(path, config=config) == expected
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "b" * 300_000 + '"}\n{"text": "c"}\n')
    assert outcomes(path, "jsonl", config) == {"page": 2, "record_too_large": 1}


def test_reads_arc_files_whole_in_parts_and_damaged(crawl_folder: Path, tmp_path: Path) -> None:
    body = http(PAGE)
    records = [b"filedesc://x.arc 0.0.0.0 20140216050221 text/plain 4\nv 1\n\n"]
    for number in range(9):
        line = f"http://example.org/a b{number} 192.0.2.1 2014021605022{number} text/html {len(body)}\n"
        records.append(line.encode() + body + b"\n")
    for pack in (gzip.compress, bytes):
        path = tmp_path / "pages.arc"
        path.write_bytes(b"".join(map(pack, records)))
        files, _ = find_inputs([str(path)])
        assert files[0].format == "arc"
        documents = list(read_file(files[0]))
        assert [document.metadata["url"] for document in documents] == [f"http://example.org/a b{i}" for i in range(9)]
        assert outcomes(path, "arc") == {"page": 9}
        for tasks in SPLITS:
            assert [name for share in shares(files, tasks) for name in share] == [item.id for item in documents]
        packed = [pack(item) for item in records]
        packed[4] = bytes(len(packed[4]))
        path.write_bytes(b"".join(packed))
        assert outcomes(path, "arc") == {"page": 8, "corrupt_record": 1}


def test_reads_over_a_file_system_that_is_not_local(members: list[bytes]) -> None:
    import fsspec

    with fsspec.open("memory://crawl/pages.warc.gz", "wb") as stream:
        stream.write(b"".join(map(gzip.compress, members)))
    files, _ = find_inputs(["memory://crawl/"])
    assert len([name for share in shares(files, 4) for name in share]) == len(members)


def test_expands_folders_and_globs(members: list[bytes], tmp_path: Path) -> None:
    for name in ("a.warc", "b.warc"):
        (tmp_path / name).write_bytes(members[0])
    (tmp_path / "notes.txt").write_text("not a crawl")
    files, skipped = find_inputs([str(tmp_path)])
    assert [Path(file.path).name for file in files] == ["a.warc", "b.warc"]
    assert [Path(file.path).name for file in skipped] == ["notes.txt"]
    globbed, _ = find_inputs([str(tmp_path / "*.warc"), (tmp_path / "a.warc").as_uri()])
    assert [file.path for file in globbed] == [file.path for file in files]
    assert len({sha for _, sha in fingerprints(files).values()}) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"hello", "neither WARC"), (b"", "empty file"), (b"filedesc://x", "ARC nor JSONL")],
)
def test_refuses_what_is_no_crawl_file(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        find_inputs([str(path)])


def test_refuses_an_address_it_cannot_open() -> None:
    with pytest.raises(UserError, match="cannot open"):
        find_inputs(["gopherfs://example/x"])
