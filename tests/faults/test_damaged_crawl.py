"""A thousand damaged crawl files: no crash, every intact record to the byte, every loss counted by its reason."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import brotli
import pytest

from data_prep.blocks.config import ReadConfig
from data_prep.blocks.read import DecodeRecords, RecordReader
from data_prep.inputs import CrawlFile

ROOT = Path(__file__).resolve().parents[2]
REASONS = {
    *("corrupt_record", "truncated_record", "record_too_large", "page_too_large", "undecodable_content"),
    *("not_http", "http_status", "not_html", "empty_body", "revisit", "unknown_record_type"),
}
FILES = 1000
BATCH = 250
LIMITS = ReadConfig(max_record_bytes=300_000, max_page_bytes=200_000)
WORDS = "the river keeps its name though none of its water stays é ü 中文 «mot» line".split()  # noqa: SIM905

Mutation = Callable[[random.Random, bytes], bytes]


def page(rng: random.Random, number: int) -> str:
    """A page that compresses as pages do, different from every other."""
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(40, 700)))
    return f"<html><head><meta charset=utf-8></head><body><p>{number} {rng.random()} {words}</p></body></html>"


def response(rng: random.Random, text: str) -> bytes:
    """An HTTP response in one of the encodings that servers use."""
    body, lines = text.encode(), ["HTTP/1.1 200 OK", "Content-Type: text/html; charset=utf-8"]
    coding = rng.choice(["", "", "gzip", "br", "deflate", "chunked"])
    if coding in ("gzip", "br", "deflate"):
        lines.append(f"Content-Encoding: {coding}")
        body = {"gzip": gzip.compress, "br": brotli.compress, "deflate": zlib.compress}[coding](body)
    elif coding:
        lines.append("Transfer-Encoding: chunked")
        cuts = [*range(0, len(body), 97), len(body)]
        body = b"".join(b"%x\r\n%s\r\n" % (end - start, body[start:end]) for start, end in pairwise(cuts))
        body += b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode() + body


def record(payload: bytes, number: int, length: int | None = None) -> bytes:
    """A WARC record, with a wrong length if one is given."""
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/{number}\r\n"
    head += "WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
    head += f"Content-Length: {len(payload) if length is None else length}\r\n\r\n"
    return head.encode() + payload + b"\r\n\r\n"


def flip(rng: random.Random, data: bytes) -> bytes:
    """One to eight flipped bits."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The end is missing: somewhere in the payload."""
    return data[: rng.randrange(1, len(data) - 8)]


def cut_head(rng: random.Random, data: bytes) -> bytes:
    """The end is missing: already in the header."""
    return data[: rng.randrange(1, min(120, len(data)))]


def blot(rng: random.Random, data: bytes) -> bytes:
    """A stretch of other bytes, as a bad disk block leaves them."""
    start = rng.randrange(len(data))
    stretch = data[start : start + rng.randrange(1, 400)]
    return (
        data[:start]
        + (bytes(len(stretch)) if rng.random() < 0.5 else rng.randbytes(len(stretch)))
        + data[start + len(stretch) :]
    )


def garbage(rng: random.Random, data: bytes) -> bytes:
    """Nothing of it is left."""
    return rng.randbytes(rng.randrange(1, 3000))


DAMAGE: list[Mutation] = [flip, cut, cut_head, blot, garbage]
WRONG = ("length", "charset", "encoding", "chunks", "too_large", "bomb")


def wrong(rng: random.Random, kind: str, text: str, number: int) -> bytes:
    """A record that is whole but says something untrue of itself."""
    payload = response(rng, text)
    if kind == "length":
        lengths = [0, 1, len(payload) // 2, len(payload) - 1, len(payload) + rng.randrange(1, 9000), 10**9, 10**17]
        return record(payload, number, rng.choice(lengths))
    start, body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html", text.encode()
    if kind == "charset":
        name = rng.choice([b"no-such-charset", b"utf-16", b"ascii", b"\xff\xfe", b"utf-7", b"idna"])
        return record(start + b"; charset=" + name + b"\r\n\r\n" + body, number)
    if kind == "encoding":
        name = rng.choice([b"gzip", b"br", b"deflate", b"zstd", b"gzip, gzip, br", b"x\xffy"])
        return record(start + b"\r\nContent-Encoding: " + name + b"\r\n\r\n" + rng.randbytes(200) + body, number)
    if kind == "chunks":
        junk = rng.choice([b"-5\r\n", b"ffffffffffff\r\n", b"5\r\n", b"zz\r\n", b"\r\n" * 50])
        return record(start + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + junk + body, number)
    large = body * (400_000 // len(body) + 1)
    if kind == "too_large":
        return record(start + b"\r\n\r\n" + large, number)
    bomb = gzip.compress(large) if rng.random() < 0.5 else brotli.compress(large, quality=1)
    name = b"gzip" if bomb[:2] == b"\x1f\x8b" else b"br"
    return record(start + b"\r\nContent-Encoding: " + name + b"\r\n\r\n" + bomb, number)


def damaged_file(seed: int) -> tuple[bytes, list[str], int]:
    """A file of six to ten records of which one or two are damaged: its bytes, the texts of the others, how many."""
    rng = random.Random(seed)
    texts = [page(rng, number) for number in range(rng.randrange(6, 11))]
    pack: Callable[[bytes], bytes] = gzip.compress if seed % 2 else bytes
    victims = set(rng.sample(range(len(texts)), rng.choice([1, 1, 2])))
    parts = []
    for number, text in enumerate(texts):
        if number not in victims:
            parts.append(pack(record(response(rng, text), number)))
        elif rng.random() < 0.4:
            parts.append(pack(wrong(rng, rng.choice(WRONG), text, number)))
        else:
            parts.append(rng.choice(DAMAGE)(rng, pack(record(response(rng, text), number))))
    intact = [text for number, text in enumerate(texts) if number not in victims]
    return b"".join(parts), intact, len(victims)


def read(path: Path, tasks: int = 1) -> tuple[list[tuple[str, str]], Counter[str]]:
    """(id, text) of what is read, and losses by reason."""
    reader = RecordReader([CrawlFile(str(path), path.name, "warc")], config=LIMITS)
    decode, pages, losses = DecodeRecords(LIMITS), [], Counter[str]()
    for rank in range(tasks):
        for document in reader.run(None, rank, tasks):
            verdict = decode.filter(document)
            if verdict is True:
                pages.append((document.id, document.text))
            else:
                losses[verdict[1]] += 1
    return pages, losses


@pytest.mark.parametrize("first", range(0, FILES, BATCH))
def test_damage_costs_the_damaged_record_alone(first: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.warc"
    for seed in range(first, first + BATCH):
        data, intact, damaged = damaged_file(seed)
        path.write_bytes(data)
        pages, losses = read(path)
        texts = [text for _, text in pages]
        missing = [number for number, text in enumerate(intact) if text not in texts]
        assert not missing, (seed, losses)
        assert set(losses) <= REASONS, seed
        lost = len(intact) + damaged - len(pages)
        assert not lost or losses, (seed, "a loss that is not counted")
        if seed % 5 == 0:
            assert read(path, tasks=3) == (pages, losses), seed


CHILD = """
import json, resource, sys, time
from collections import Counter
from data_prep.blocks.read import DecodeRecords, RecordReader
from data_prep.inputs import CrawlFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
decode, counts = DecodeRecords(), Counter()
for path in sys.argv[1:]:
    for document in RecordReader([CrawlFile(path, path, "warc")]).run():
        verdict = decode.filter(document)
        counts["page" if verdict is True else verdict[1]] += 1
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"counts": counts, "mib": (peak - before) / 1024}))
"""
HUGE = 200 * 2**20


def stream(chunks: list[tuple[bytes, int]], wbits: int = 31) -> bytes:
    """A gzip member of chunks that come several times each, made without holding them."""
    packer = zlib.compressobj(1, wbits=wbits)
    return b"".join([packer.compress(chunk) for chunk, times in chunks for _ in range(times)] + [packer.flush()])


def test_huge_pages_and_bombs_take_bounded_memory(tmp_path: Path) -> None:
    """A page of 200 MB (stored as it is, and gzipped), a bomb as a record, and two as a page: in one small process."""
    small = record(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>words</p>", 0)
    block = b"<p>x</p>" * 131072
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    whole = record(head, 1, len(head) + HUGE)[:-4]
    bomb = stream([(bytes(2**20), 1200)])
    coded = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: "
    twice = gzip.compress(stream([(bytes(2**20), 200)]))
    bombs = [record(coded + b"gzip\r\n\r\n" + bomb, 2), record(coded + b"gzip, x-gzip\r\n\r\n" + twice, 3)]
    bombs.append(record(coded + b"br\r\n\r\n" + brotli.compress(bytes(HUGE), quality=1), 4))
    plain, packed = tmp_path / "plain.warc", tmp_path / "packed.warc.gz"
    with plain.open("wb") as file:
        file.write(small + whole)
        for _ in range(HUGE // len(block)):
            file.write(block)
        file.write(b"\r\n\r\n" + b"".join(bombs) + small)
    members = [gzip.compress(small), stream([(whole, 1), (block, HUGE // len(block)), (b"\r\n\r\n", 1)]), bomb]
    packed.write_bytes(b"".join([*members, *map(gzip.compress, bombs), gzip.compress(small)]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(plain), str(packed)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr[-2000:]
    result = json.loads(child.stdout)
    counts = Counter(result["counts"])
    assert counts.pop("page") == 4
    assert counts.pop("page_too_large") == 6
    assert sum(counts.values()) == 3 and set(counts) <= {"record_too_large", "corrupt_record"}
    assert result["mib"] < 600
