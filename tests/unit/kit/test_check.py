"""The examination of a dataset: every kind of damage has its finding, and sound data has none."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.errors import UserError
from kit.files import sha256_file
from kit.tokens import fingerprints, scan
from kit.tokens.card import DatasetCard, SplitCard, TokenizerCard, write_card
from kit.tokens.check import check_shards
from kit.tokens.examine import examine
from kit.tokens.findings import Examination
from kit.tokens.fingerprints import FingerprintFile, of_documents, repeated, shared
from kit.tokens.shards import Shard, ShardWriter

VOCAB, EOD, UNKNOWN, BYTES = 1000, 2, 0, (8, 263)
Documents = list[np.ndarray]


def text_like(count: int, seed: int, length: int = 120) -> Documents:
    """Documents whose ids are distributed as words are: the frequency falls with the rank."""
    generator = np.random.default_rng(seed)
    ranks = np.arange(1, VOCAB - 264 + 1)
    ids = generator.choice(ranks + 263, size=(count, length), p=1 / ranks / (1 / ranks).sum())
    return [np.append(row, EOD) for row in ids]


def make(folder: Path, splits: dict[str, Documents], bytes_per_token: float = 4.0) -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = folder / "tokenizer" / "tokenizer.model"
    tokenizer.write_bytes(b"pieces")
    cards = {}
    for name, documents in splits.items():
        with ShardWriter(folder / "shards" / name, np.dtype(np.uint16)) as writer:
            for document in documents:
                writer.add(document)
            info = writer.finish()
        cards[name] = SplitCard(
            prefix=f"shards/{name}", text_bytes=int(info.tokens * bytes_per_token), **info._asdict()
        )
    total = sum(card.documents for card in cards.values())
    tokens = TokenizerCard(
        kind="bpe",
        vocab_size=VOCAB,
        fingerprint=sha256_file(tokenizer),
        file="tokenizer/tokenizer.model",
        eod_id=EOD,
        pad_id=3,
        unknown_id=UNKNOWN,
        byte_ids=BYTES,
    )
    card = DatasetCard(
        name="made",
        created_by="run",
        splits=cards,
        tokenizer=tokens,
        blocks=[],
        config_digest="sha256:0",
        documents_in=total,
        documents_out=total,
    )
    write_card(folder / "card.json", card)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": text_like(300, 1), "validation": text_like(200, 2)}
    return make(tmp_path_factory.mktemp("sound") / "artifacts", splits)


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "artifacts"))


def levels(found: Examination) -> dict[str, str]:
    return {finding.found: finding.level for finding in found.findings}


@pytest.mark.parametrize("depth", ["fast", "full", "thorough"])
def test_sound_data_has_no_finding(sound: Path, depth: Any) -> None:
    found = examine(sound, depth=depth)
    assert found.findings == []
    facts = found.splits["train"]
    assert (facts.documents, facts.tokens) == (300, 300 * 121)
    assert facts.bytes_per_token == pytest.approx(4 * 121 / 120, rel=1e-3)
    assert 6 < (facts.entropy_bits or 0) < 8.5
    assert (facts.unknown_rate, facts.byte_rate) == (0.0, 0.0)
    if depth != "fast":
        assert (facts.repeated_share, found.splits["validation"].leaked_share) == (0.0, 0.0)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def patch(path: Path, offset: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((folder / "card.json").read_text())
    change(data)
    (folder / "card.json").write_text(json.dumps(data))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a token file that lost its end": (lambda f: cut(f / "shards/train.bin", 1000), r"train\.bin: 1000 bytes"),
    "an index that lost its end": (lambda f: cut(f / "shards/train.idx", 500), r"train\.idx: 500 bytes"),
    "an index shorter than its header": (lambda f: cut(f / "shards/train.idx", 12), r"train\.idx: its first bytes"),
    "another magic": (lambda f: patch(f / "shards/train.idx", 0, b"TNTIDX"), r"train\.idx: its first bytes"),
    "tokens that are no whole numbers": (lambda f: patch(f / "shards/train.idx", 17, b"\x07"), r"train\.(idx|bin)"),
    "no token file": (lambda f: (f / "shards/train.bin").unlink(), r"no file at .*train\.bin"),
    "an id outside the vocabulary": (
        lambda f: patch(f / "shards/train.bin", 2 * 7, struct.pack("<H", VOCAB)),
        "token id 1000 at position 7",
    ),
    "another tokenizer": (lambda f: (f / "tokenizer/tokenizer.model").write_bytes(b"others"), "fingerprint"),
    "no tokenizer": (lambda f: (f / "tokenizer/tokenizer.model").unlink(), r"no file at .*tokenizer\.model"),
    "counts of another run": (lambda f: edit(f, lambda c: c["splits"]["train"].update(tokens=5)), "300 documents and"),
    "an end token of another tokenizer": (
        lambda f: edit(f, lambda c: c["tokenizer"].update(eod_id=1)),
        "300 documents without an end token; number 0 ends with 2",
    ),
    "a special piece outside the vocabulary": (
        lambda f: edit(f, lambda c: c["tokenizer"].update(pad_id=VOCAB)),
        "names the id 1000",
    ),
    "document boundaries that do not count up": (
        lambda f: patch(f / "shards/train.idx", (f / "shards/train.idx").stat().st_size - 8, struct.pack("<q", 7)),
        "boundaries",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("fast", [True, False])
def test_damage_is_refused_in_words(copy: Path, damage: str, fast: bool) -> None:
    do, expected = DAMAGE[damage]
    do(copy)
    with pytest.raises(UserError, match=expected):
        check_shards(copy, fast=fast)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"schema_version": 99}'])
def test_without_a_card_there_is_nothing_to_examine(copy: Path, content: bytes | None) -> None:
    (copy / "card.json").unlink()
    if content is not None:
        (copy / "card.json").write_bytes(content)
    with pytest.raises(UserError, match=r"card\.json"):
        examine(copy)


def test_the_other_splits_are_examined_all_the_same(copy: Path) -> None:
    cut(copy / "shards/train.bin", 10)
    found = examine(copy)
    assert list(found.splits) == ["validation"]
    assert found.splits["validation"].repeated_share == 0
    assert found.splits["validation"].leaked_share is None


def test_a_changed_token_is_found_by_the_digests_only(copy: Path) -> None:
    patch(copy / "shards/train.bin", 0, struct.pack("<H", 500))
    assert examine(copy).findings == []
    assert [finding.found for finding in examine(copy, depth="thorough").errors] == [
        f"{copy / 'shards/train'}.bin/.idx differ from the SHA-256 in the card"
    ]


def test_a_middle_boundary_needs_the_full_check(copy: Path) -> None:
    index = copy / "shards/train.idx"
    patch(index, 34 + 12 * 300 + 8 * 5, struct.pack("<q", 77))
    assert "boundaries" in examine(copy).errors[0].found


def test_every_document_ends_with_the_end_token(tmp_path: Path) -> None:
    documents = text_like(40, 1)
    documents[17] = documents[17][:-1]
    found = examine(make(tmp_path / "a", {"train": documents}))
    assert [finding.level for finding in found.findings] == ["error"]
    assert "1 documents without an end token; number 17 ends with" in found.findings[0].found


def alarms_of(
    tmp_path: Path, train: Documents, validation: Documents | None = None, **options: float
) -> dict[str, str]:
    splits = {"train": train} | ({"validation": validation} if validation else {})
    return levels(examine(make(tmp_path / "made", splits, **options)))


def test_repeated_documents_raise_an_alarm(tmp_path: Path) -> None:
    documents = text_like(190, 3)
    assert alarms_of(tmp_path, documents + documents[:10]) == {
        "train: 5 % of documents have the tokens of an earlier one": "warning"
    }


@pytest.mark.parametrize(("leaked", "level"), [(1, "warning"), (20, "error")])
def test_validation_documents_that_were_trained_on_are_found(tmp_path: Path, leaked: int, level: str) -> None:
    train = text_like(150, 4)
    found = alarms_of(tmp_path, train, text_like(200 - leaked, 5) + train[:leaked])
    assert found[f"validation: {leaked / 2:.3g} % of documents are in the training split too"] == level


def test_documents_that_only_begin_alike_are_near_leaks(tmp_path: Path) -> None:
    train, validation = text_like(150, 4), text_like(100, 5)
    for number in range(7):
        validation[number] = np.concatenate([train[number][:64], validation[number][64:]])
    validation[50] = np.concatenate([train[50][:63], validation[50][63:]])
    validation[50][63] = train[50][63] % 500 + 300
    found = alarms_of(tmp_path, train, validation)
    assert found == {"validation: 7 % of documents begin with the 64 tokens of a training document": "warning"}


def test_documents_of_an_end_token_alone_are_counted(tmp_path: Path) -> None:
    found = alarms_of(tmp_path, [*text_like(50, 1), np.array([EOD])])
    assert found["train: 1 documents of one token (1.96 %)"] == "error"


def test_the_same_few_tokens_and_noise_raise_an_entropy_alarm(tmp_path: Path) -> None:
    few = [np.append(np.random.default_rng(n).integers(300, 306, 400), EOD) for n in range(60)]
    (low,) = alarms_of(tmp_path / "low", few)
    assert low.startswith("train: the ids have an entropy of 2.")
    noise = [np.append(np.random.default_rng(n).integers(3, VOCAB, 400), EOD) for n in range(200)]
    high = [what for what in alarms_of(tmp_path / "high", noise) if "entropy" in what]
    assert high and "9.9" in high[0]


def test_unknown_and_byte_pieces_are_counted(tmp_path: Path) -> None:
    documents = text_like(200, 6)
    for document in documents:
        document[:20] = 100  # a byte
        document[20] = UNKNOWN
    found = alarms_of(tmp_path, documents)
    assert found == {
        "train: 0.826 % of tokens are the unknown piece": "warning",
        "train: 16.5 % of tokens are single bytes": "warning",
    }


def test_a_text_length_of_another_run_is_noticed(tmp_path: Path) -> None:
    assert list(alarms_of(tmp_path, text_like(200, 7), bytes_per_token=50)) == [
        "train: 50.42 bytes of text a token",
    ]


def test_small_batches_give_the_same_facts(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = examine(sound).splits
    monkeypatch.setattr(scan, "_PIECE_TOKENS", 97)
    monkeypatch.setattr(scan, "_BATCH_DOCUMENTS", 7)
    assert examine(sound).splits == expected


def test_the_fast_check_reads_a_bounded_number_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "long", {"train": text_like(300, 1, length=6000)})
    shard = Shard(folder / "shards" / "train")
    read = 0
    count = scan.Scan.count

    def counted(self: scan.Scan, tokens: np.ndarray, start: int) -> None:
        nonlocal read
        read += len(tokens)
        count(self, tokens, start)

    monkeypatch.setattr(scan.Scan, "count", counted)
    assert scan.scan_sample(shard, VOCAB, EOD).outside is None
    assert 0 < read <= scan.SAMPLED_PLACES * scan.SAMPLED_TOKENS < len(shard.tokens)
    scan.scan_all(shard, VOCAB, EOD, *(FingerprintFile(tmp_path / name) for name in "ab"))
    assert read > len(shard.tokens)


def test_comparing_in_parts_gives_the_same_counts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    files = []
    for name in ("one", "other"):
        file = FingerprintFile(tmp_path / name)
        mixed, _ = of_documents(generator.integers(0, 500, 2000).astype(np.uint16), np.ones(2000, np.int64))
        file.add(mixed[:1200])
        file.add(mixed[1200:])
        file.close()
        files.append(file)
    values = [set(np.fromfile(tmp_path / name, np.uint64).tolist()) for name in ("one", "other")]
    assert repeated(files[0]) == 2000 - len(values[0]) == repeated(files[0], most_in_memory=100)
    one, other = files
    assert shared(one, other) == shared(one, other, most_in_memory=100) > 0
    assert fingerprints.part_bits(2000, 100) == 5
