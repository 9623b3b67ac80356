"""Reading: every kind of file, and damage that costs only the damaged record."""

import gzip
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.blocks.read import DecodeRecords, RecordReader, read_file
from data_prep.inputs import CrawlFile, find_inputs, fingerprints
from data_prep.ledger import REASON
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
    "cc_net_sample_wet_headers.txt": {"page": 2},
    "clueweb09_ja_warc018.warc.gz": {"page": 29},
    "edge_bad_target_uri.warc.gz": {"page": 1},
    "edge_brotli.warc.gz": {"page": 1},
    "edge_chunked_te.warc": {"page": 1},
    "edge_gzip_extra_sl.warc.gz": {},
    "edge_nonchunked_gzip.warc.gz": {"page": 1, "http_status": 1, "revisit": 1},
    "edge_transfer_gzip.warc.gz": {"page": 1},
    "edge_truncated.warc": {"page": 1, "corrupt_record": 1},
    "edge_wrong_chunks.warc.gz": {"page": 1},
    "wget_archive_org.warc.gz": {"page": 2, "not_html": 5, "http_status": 9},
    "wget_dolma_0000.warc.gz": {"page": 22},
}


def outcomes(path: Path, kind: str = "warc") -> Counter[str]:
    decode, counts = DecodeRecords(), Counter()
    for document in read_file(CrawlFile(str(path), path.name, kind)):
        verdict = decode.filter(document)
        counts["page" if verdict is True else verdict[1]] += 1
    return counts


def test_reads_the_real_edge_case_files(crawl_folder: Path) -> None:
    files, skipped = find_inputs([str(crawl_folder)])
    assert [(Path(file.given).name, "ARC" in file.reason) for file in skipped] == [("edge_arc.arc.gz", True)]
    assert {Path(file.given).name: dict(outcomes(Path(file.path))) for file in files} == EXPECTED


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


def test_tasks_share_one_file_without_loss(members: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "pages.warc"
    path.write_bytes(b"".join(members))
    files, _ = find_inputs([str(path)])
    reader = RecordReader(files)
    shares = [[document.id for document in reader.run(None, rank, 4)] for rank in range(4)]
    assert sorted(name for share in shares for name in share) == sorted(
        document.id for document in reader.run(None, 0, 1)
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(list(RecordReader(files, limit=5).run(None, 0, 1))) == 5
    assert not any(REASON in document.metadata for document in reader.run(None, 0, 1))


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
    [(None, "does not exist"), (b"hello", "neither WARC"), (b"", "empty file"), (b"filedesc://x", "ARC file")],
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
